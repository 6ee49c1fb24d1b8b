"""A linear layer as two thinner ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import PositiveInt
from torch import nn

from paramtrans.api.adapter import BlockAdapter, BlockOptions, Part
from paramtrans.api.options import Trials
from paramtrans.api.specs import SymmetryGroup, SymmetryMember
from paramtrans.api.stacking import Params
from paramtrans_blocks.attention_target import low_rank, square_root
from paramtrans_blocks.linear_target import LinearTarget, LinearTargetOptions


class LowRankLinearOptions(LinearTargetOptions):
    """Sizes of a linear layer of low rank."""

    rank: PositiveInt | None = None
    """Values between the two halves; so many by default that they have half of the whole layer's weights."""


class LowRankLinear(LinearTarget):
    """`x → B A x + b`. In place of a linear layer it starts from its first singular vectors, weighed by what enters
    (SVD-LLM: Wang et al. 2024, arXiv 2403.07378, section 3.1)."""

    Options: ClassVar[type[BlockOptions]] = LowRankLinearOptions
    options: LowRankLinearOptions
    trials: ClassVar[Trials] = ({}, {"rank": 3, "bias": False})

    @property
    def rank(self) -> int:
        """Values between the two halves."""
        channels = self.options.channels
        return self.options.rank or max(1, channels * self.out // (2 * (channels + self.out)))

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
        up, down = low_rank(part.module.weight.detach().double(), self.rank, square_root(part.entering))
        up, down = up.to(part.entering), down.to(part.entering)
        bias = torch.zeros(self.out).to(up) if part.module.bias is None else part.module.bias.detach()
        return {"0.weight": down[None], "1.weight": up[None], **({"1.bias": bias[None]} if self.options.bias else {})}
