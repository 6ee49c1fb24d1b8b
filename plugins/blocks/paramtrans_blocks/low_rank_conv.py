"""Each convolution as two thinner ones: to a few channels with the whole kernel, and from them by a 1×1."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import PositiveInt
from torch import Tensor

from paramtrans.api.adapter import BlockAdapter, BlockOptions
from paramtrans.api.options import Trials
from paramtrans_blocks.attention_target import low_rank
from paramtrans_blocks.chain_target import ChainTargetOptions
from paramtrans_blocks.conv_chain import Step
from paramtrans_blocks.factored_target import FactoredTarget


class LowRankConvOptions(ChainTargetOptions):
    """Sizes of convolutions of low rank."""

    hidden: PositiveInt | None = None
    """Channels between the two convolutions; as many as leave the block by default."""
    rank: PositiveInt | None = None
    """Channels between the halves of a convolution; a quarter of those that leave the block by default."""


class LowRankConv(FactoredTarget):
    """Each k×k convolution as one to `rank` channels and a 1×1.

    In place of convolutions it starts from the first singular vectors of their weights as matrices `[out, in k k]`; the
    1×1 are then solved for.
    """

    Options: ClassVar[type[BlockOptions]] = LowRankConvOptions
    options: LowRankConvOptions
    trials: ClassVar[Trials] = ({"rank": 3}, {"rank": 2, "hidden": 3, "final": None}, {"layers": 1, "skip": "none"})

    @property
    def rank(self) -> int:
        return self.options.rank or max(1, self.out // 4)

    def widths(self) -> tuple[int, ...]:
        if self.options.layers == 1:
            return (self.rank,)
        return (self.rank, self.options.hidden or self.out, self.rank)

    def with_sizes(self, sizes: Mapping[str, int]) -> BlockAdapter:
        given = {f"hidden{number}": width for number, width in enumerate(self.widths(), 1)} | dict(sizes)
        update = {"rank": given["hidden1"]}
        if self.options.layers == 2:
            update["hidden"] = given["hidden2"]
        return type(self)(self.options.model_copy(update=update))

    def steps(self) -> list[Step]:
        kernel, stride = self.options.kernel, self.options.stride
        steps = []
        for number in range(self.options.layers):
            last = number == self.options.layers - 1
            thin = Step(kernel=kernel, stride=1 if number else stride, padding=kernel // 2, norm=None, activation=None)
            steps += [thin, Step(kernel=1, padding=0, bias=True, norm=None, activation=None if last else "relu")]
        return steps

    def leaving(self) -> tuple[int, ...]:
        return (*self.widths()[1:2], self.out)

    def factors(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        up, down = low_rank(weight.flatten(1), self.rank)
        return down.view(-1, *weight.shape[1:]), up[:, :, None, None]
