"""What families of targets for one linear layer share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import PositiveInt
from torch import nn

from paramtrans.api.adapter import BlockAdapter, BlockOptions, Part
from paramtrans.errors import SpecMismatch


class LinearTargetOptions(BlockOptions):
    """Sizes of what takes a linear layer's place."""

    out: PositiveInt | None = None
    """Channels that leave it; as many as enter it by default."""
    bias: bool = True
    """Whether a bias is added at the end."""


class LinearTarget(BlockAdapter):
    """A kind of block that takes the place of one linear layer."""

    Options: ClassVar[type[BlockOptions]] = LinearTargetOptions
    options: LinearTargetOptions
    channels_last: ClassVar[bool] = True
    positionwise: ClassVar[bool] = True

    @property
    def out(self) -> int:
        """Channels that leave the layer."""
        return self.options.out or self.options.channels

    @classmethod
    def options_for(cls, part: Part) -> Mapping[str, Any]:
        """Channels and bias of the layer that stands there."""
        if not isinstance(part.module, nn.Linear):
            raise SpecMismatch(f"it is a {type(part.module).__name__}, no linear layer")
        layer = part.module
        return {"channels": layer.in_features, "out": layer.out_features, "bias": layer.bias is not None}
