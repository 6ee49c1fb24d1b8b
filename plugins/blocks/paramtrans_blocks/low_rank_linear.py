"""A linear layer as two thinner ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import PositiveInt
from torch import nn

from paramtrans.api.adapter import BlockAdapter, BlockOptions, Part
from paramtrans.api.options import Trials
from paramtrans.api.specs import SymmetryGroup, SymmetryMember
from paramtrans.api.stacking import Params
from paramtrans.errors import SpecMismatch
from paramtrans_blocks.attention_target import low_rank


class LowRankLinearOptions(BlockOptions):
    """Sizes of a linear layer of low rank."""

    out: PositiveInt | None = None
    """Channels that leave it; as many as enter it by default."""
    rank: PositiveInt | None = None
    """Values between the two halves; so many by default that they have half of the whole layer's weights."""
    bias: bool = True
    """Whether the second half has a bias."""


class LowRankLinear(BlockAdapter):
    """`x → B A x + b`. In place of a linear layer it starts from its first singular vectors."""

    Options: ClassVar[type[BlockOptions]] = LowRankLinearOptions
    options: LowRankLinearOptions
    trials: ClassVar[Trials] = ({}, {"rank": 3, "bias": False})
    channels_last: ClassVar[bool] = True
    positionwise: ClassVar[bool] = True

    @property
    def out(self) -> int:
        """Channels that leave the layer."""
        return self.options.out or self.options.channels

    @property
    def rank(self) -> int:
        """Values between the two halves."""
        channels = self.options.channels
        return self.options.rank or max(1, channels * self.out // (2 * (channels + self.out)))

    @classmethod
    def options_for(cls, part: Part) -> Mapping[str, Any]:
        if not isinstance(part.module, nn.Linear):
            raise SpecMismatch(f"it is a {type(part.module).__name__}, no linear layer")
        layer = part.module
        return {"channels": layer.in_features, "out": layer.out_features, "bias": layer.bias is not None}

    def with_sizes(self, sizes: Mapping[str, int]) -> BlockAdapter:
        return type(self)(self.options.model_copy(update={"rank": sizes.get("rank", self.rank)}))

    def module(self) -> nn.Module:
        down = nn.Linear(self.options.channels, self.rank, bias=False)
        return nn.Sequential(down, nn.Linear(self.rank, self.out, self.options.bias))

    def symmetries(self) -> tuple[SymmetryGroup, ...]:
        members = (SymmetryMember("0.weight", 0, 1), SymmetryMember("1.weight", 1, -1))
        return (SymmetryGroup("rank", self.rank, members, rescale=True),)

    def warm_start(self, part: Part) -> Params | None:
        if not isinstance(part.module, nn.Linear) or self.rank > min(part.module.weight.shape):
            return None
        up, down = low_rank(part.module.weight.detach(), self.rank)
        bias = torch.zeros(self.out).to(up) if part.module.bias is None else part.module.bias.detach()
        return {"0.weight": down[None], "1.weight": up[None], **({"1.bias": bias[None]} if self.options.bias else {})}
