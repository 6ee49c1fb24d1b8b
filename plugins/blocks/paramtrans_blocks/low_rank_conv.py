"""Each convolution as two thinner ones: to a few channels with the whole kernel, and from them by a 1×1."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import PositiveInt

from paramtrans.api.adapter import BlockAdapter, BlockOptions, Part
from paramtrans.api.options import Trials
from paramtrans.api.stacking import Params
from paramtrans_blocks.attention_target import low_rank
from paramtrans_blocks.chain_target import ChainTarget, ChainTargetOptions, folded_layers, projection
from paramtrans_blocks.conv_chain import Step


class LowRankConvOptions(ChainTargetOptions):
    """Sizes of convolutions of low rank."""

    hidden: PositiveInt | None = None
    """Channels between the two convolutions; as many as leave the block by default."""
    rank: PositiveInt | None = None
    """Channels between the halves of a convolution; a quarter of those that leave the block by default."""


class LowRankConv(ChainTarget):
    """Each k×k convolution as one to `rank` channels and a 1×1.

    In place of convolutions it starts from the first singular vectors of their weights as matrices `[out, in k k]`
    (Zhang et al. 2016, arXiv 1505.06798, section 3.1, without its responses).
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

    def warm_start(self, part: Part) -> Params | None:
        layers = folded_layers(part)
        if layers is None or len(layers) != self.options.layers:
            return None
        outs = [self.out] if self.options.layers == 1 else [self.widths()[1], self.out]
        fits = all(
            len(weight) == out
            and set(weight.shape[2:]) == {self.options.kernel}
            and self.rank <= min(out, weight[0].numel())
            for (weight, _), out in zip(layers, outs, strict=True)
        )
        if not fits:
            return None
        params = projection(part) if self.options.skip == "projection" else {}
        for number, (weight, bias) in enumerate(layers):
            up, down = low_rank(weight.flatten(1), self.rank)
            params[f"conv{2 * number + 1}.weight"] = down.view(1, self.rank, *weight.shape[1:])
            params[f"conv{2 * number + 2}.weight"] = up[None, :, :, None, None]
            params[f"conv{2 * number + 2}.bias"] = (torch.zeros(len(weight)).to(weight) if bias is None else bias)[None]
        return {name: params[name] for name in self.spec.names} if params.keys() >= {*self.spec.names} else None
