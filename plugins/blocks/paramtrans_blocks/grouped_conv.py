"""Each convolution as one in groups of channels and a 1×1 that mixes the groups."""

from __future__ import annotations

from typing import ClassVar, Self

import torch
from pydantic import PositiveInt, model_validator
from torch import Tensor

from paramtrans.api.adapter import BlockOptions
from paramtrans.api.options import Trials
from paramtrans_blocks.attention_target import low_rank
from paramtrans_blocks.chain_target import ChainTargetOptions
from paramtrans_blocks.conv_chain import Step
from paramtrans_blocks.factored_target import FactoredTarget


class GroupedConvOptions(ChainTargetOptions):
    """Sizes of grouped convolutions."""

    hidden: PositiveInt | None = None
    """Channels between the two; as many as leave the block by default."""
    groups: PositiveInt = 2
    """Groups of channels that are convolved apart from each other."""

    @model_validator(mode="after")
    def _divides(self) -> Self:
        entering = (self.channels, self.hidden or self.out or self.channels)[: self.layers]
        if any(channels % self.groups for channels in entering):
            raise ValueError(f"groups: {' and '.join(map(str, entering))} channels are no multiples of {self.groups}")
        return self


class GroupedConv(FactoredTarget):
    """Each convolution as a grouped one and a 1×1 (groups as in ResNeXt: Xie et al. 2017, arXiv 1611.05431).

    In place of convolutions it starts from the first singular vectors of what each group of channels gives to all
    outputs; the 1×1 are then solved for.
    """

    Options: ClassVar[type[BlockOptions]] = GroupedConvOptions
    options: GroupedConvOptions
    trials: ClassVar[Trials] = ({}, {"hidden": 6, "final": None}, {"layers": 1, "skip": "none", "groups": 4})

    def widths(self) -> tuple[int, ...]:
        return () if self.options.layers == 1 else (self.options.hidden or self.out,)

    def steps(self) -> list[Step]:
        kernel, stride, groups = self.options.kernel, self.options.stride, self.options.groups
        steps, entering = [], (self.options.channels, *self.widths())
        for number in range(self.options.layers):
            is_last = number == self.options.layers - 1
            grouped = Step(
                kernel=kernel,
                stride=1 if number else stride,
                padding=kernel // 2,
                depthwise=True,
                together=entering[number] // groups,
                norm=None,
                activation=None,
            )
            pointwise = Step(kernel=1, padding=0, bias=True, norm=None, activation=None if is_last else "relu")
            steps += [grouped, pointwise]
        return steps

    def leaving(self) -> tuple[int, ...]:
        return (*self.widths(), self.out)

    def factors(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        out, channels, *kernel = weight.shape
        groups = weight.transpose(0, 1).unflatten(0, (self.options.groups, -1)).transpose(1, 2)  # [g, out, in, k, k]
        size = channels // self.options.groups
        rank = min(size, out)
        up, down = low_rank(groups.flatten(2), rank)
        missing = size - rank
        up = torch.nn.functional.pad(up, (0, missing))
        down = torch.nn.functional.pad(down, (0, 0, 0, missing))
        thin = down.reshape(channels, size, *kernel)
        return thin, up.transpose(0, 1).reshape(out, channels, 1, 1)
