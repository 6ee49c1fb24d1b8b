"""A channel MLP at each position, the paper's MLP target."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from paramtrans.api.adapter import BlockAdapter, BlockOptions, Part
from paramtrans.api.block_module import ReadoutModule
from paramtrans.api.options import Trials
from paramtrans.api.specs import SymmetryGroup, SymmetryMember
from paramtrans.errors import SpecMismatch


class MLPOptions(BlockOptions):
    """Sizes of an MLP block."""

    hidden: PositiveInt
    """Hidden units."""


class MLP(BlockAdapter):
    """Linear, ReLU, Linear over the channels of each position, + input, ReLU."""

    Options: ClassVar[type[BlockOptions]] = MLPOptions
    options: MLPOptions
    trials: ClassVar[Trials] = ({"hidden": 9}, {"hidden": 1})
    rectified: ClassVar[bool] = True
    readout: ClassVar[str | None] = "fc2"

    @classmethod
    def options_for(cls, part: Part) -> Mapping[str, Any]:
        """Twice as many hidden units as channels."""
        shape = part.entering.shape
        if len(shape) != 4 or shape != part.leaving.shape:
            raise SpecMismatch(
                f"it makes {list(part.leaving.shape)} of {list(shape)}, no maps of features of one shape"
            )
        return {"channels": shape[1], "hidden": 2 * shape[1]}

    def with_sizes(self, sizes: Mapping[str, int]) -> BlockAdapter:
        return type(self)(self.options.model_copy(update={"hidden": sizes.get("hidden", self.options.hidden)}))

    def module(self) -> nn.Module:
        return MLPModule(self.options.channels, self.options.hidden)

    def symmetries(self) -> tuple[SymmetryGroup, ...]:
        first_layer = (SymmetryMember("fc1.weight", 0, 1), SymmetryMember("fc1.bias", 0, 1))
        return (
            SymmetryGroup(
                "hidden", self.options.hidden, (*first_layer, SymmetryMember("fc2.weight", 1, -1)), rescale=True
            ),
        )

    def stream(self) -> tuple[SymmetryMember, ...]:
        return (SymmetryMember("fc1.weight", 1), SymmetryMember("fc2.weight", 0), SymmetryMember("fc2.bias", 0))


class MLPModule(nn.Module, ReadoutModule):
    """`[batch, channels, h, w]` → the same shape."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, hidden)
        self.fc2 = nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.branch(x) + x)

    def branch(self, x: Tensor) -> Tensor:
        branch: Tensor = self.fc2(self.features(x).movedim(-3, -1))
        return branch.movedim(-1, -3)

    def features(self, x: Tensor) -> Tensor:
        return torch.relu(self.fc1(x.movedim(-3, -1))).movedim(-1, -3)
