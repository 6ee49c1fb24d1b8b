"""Depthwise-separable convolutions, in place of one convolution or of a block of two."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import PositiveInt
from torch import Tensor

from paramtrans.api.adapter import BlockAdapter, BlockOptions
from paramtrans.api.options import Trials
from paramtrans_blocks.chain_target import ChainTargetOptions
from paramtrans_blocks.conv_chain import Step
from paramtrans_blocks.factored_target import FactoredTarget


class SeparableOptions(ChainTargetOptions):
    """Sizes of depthwise-separable convolutions."""

    hidden: PositiveInt | None = None
    """Channels between the two; as many as leave the block by default."""


class Separable(FactoredTarget):
    """Each convolution as a depthwise one and a 1×1 (Howard et al. 2017, MobileNets, arXiv 1704.04861).

    In place of convolutions it starts from the best approximation of each input channel's kernels by one kernel times a
    number for each output channel, the first singular vectors (Guo et al. 2018, arXiv 1808.05517, network decoupling);
    the numbers are then solved for.
    """

    Options: ClassVar[type[BlockOptions]] = SeparableOptions
    options: SeparableOptions
    trials: ClassVar[Trials] = ({}, {"hidden": 3, "final": None}, {"layers": 1, "skip": "none", "kernel": 5})

    def widths(self) -> tuple[int, ...]:
        return () if self.options.layers == 1 else (self.options.hidden or self.out,)

    def with_sizes(self, sizes: Mapping[str, int]) -> BlockAdapter:
        hidden = sizes.get("hidden1", self.options.hidden)
        return type(self)(self.options.model_copy(update={"hidden": hidden}))

    def steps(self) -> list[Step]:
        kernel, stride = self.options.kernel, self.options.stride
        steps = []
        for number in range(self.options.layers):
            is_last = number == self.options.layers - 1
            steps.append(
                Step(
                    kernel=kernel,
                    stride=1 if number else stride,
                    padding=kernel // 2,
                    depthwise=True,
                    norm=None,
                    activation=None,
                )
            )
            steps.append(Step(kernel=1, padding=0, bias=True, norm=None, activation=None if is_last else "relu"))
        return steps

    def leaving(self) -> tuple[int, ...]:
        return (*self.widths(), self.out)

    def factors(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        return separated(weight)


def separated(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A convolution as a depthwise one and a 1×1, nearest in the sum of squares.

    Args:
        weight: `[out, in, k, k]`.

    Returns:
        `[in, 1, k, k]` and `[out, in, 1, 1]`.
    """
    out, channels, *kernel = weight.shape
    left, values, right = torch.linalg.svd(weight.transpose(0, 1).flatten(2), full_matrices=False)
    root = values[:, 0].sqrt()
    depthwise = (right[:, 0] * root[:, None]).view(channels, 1, *kernel)
    pointwise = (left[:, :, 0] * root[:, None]).mT.reshape(out, channels, 1, 1)
    return depthwise, pointwise
