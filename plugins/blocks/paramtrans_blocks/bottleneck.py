"""A thinner convolution between two of 1×1, in place of a block of two."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import PositiveInt

from paramtrans.api.adapter import BlockAdapter, BlockOptions
from paramtrans.api.options import Trials
from paramtrans_blocks.chain_target import ChainTarget, ChainTargetOptions
from paramtrans_blocks.conv_chain import Step


class BottleneckOptions(ChainTargetOptions):
    """Sizes of a bottleneck."""

    layers: Literal[2] = 2
    """As it takes a block's place."""
    hidden: tuple[PositiveInt, PositiveInt] | None = None
    """Channels that enter and leave the convolution; half of those that leave the block by default."""


class Bottleneck(ChainTarget):
    """1×1, ReLU, convolution, ReLU, 1×1, + skip, ReLU (He et al. 2016, arXiv 1512.03385, figure 5)."""

    Options: ClassVar[type[BlockOptions]] = BottleneckOptions
    options: BottleneckOptions
    trials: ClassVar[Trials] = (
        {"hidden": [8, 6]},
        {},
        {"hidden": [3, 2], "kernel": 5},
        {"hidden": [2, 2], "skip": "none", "final": None},
    )

    def widths(self) -> tuple[int, ...]:
        return self.options.hidden or (max(1, self.out // 2),) * 2

    def with_sizes(self, sizes: Mapping[str, int]) -> BlockAdapter:
        hidden = tuple(sizes.get(f"hidden{i}", size) for i, size in enumerate(self.widths(), 1))
        return type(self)(self.options.model_copy(update={"hidden": hidden}))

    def steps(self) -> list[Step]:
        kernel, stride = self.options.kernel, self.options.stride
        return [
            Step(kernel=1, padding=0, bias=True, norm=None),
            Step(kernel=kernel, stride=stride, padding=kernel // 2, bias=True, norm=None),
            Step(kernel=1, padding=0, bias=True, norm=None, activation=None),
        ]
