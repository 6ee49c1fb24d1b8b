"""Positions mixed by a convolution over them, in place of attention."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn.functional import conv1d, pad

from paramtrans.api.adapter import BlockOptions
from paramtrans.api.options import Trials
from paramtrans_blocks.attention_target import AttentionTarget, AttentionTargetModule, AttentionTargetOptions, by_head


class ConvMixerOptions(AttentionTargetOptions):
    """Sizes of a convolutional mixer."""

    reach: PositiveInt = 8
    """Positions to each side that a position is made of."""


class ConvMixer(AttentionTarget):
    """A convolution of the values over positions, a kernel for each channel, times gates of the position itself.

    out(σ(G x) · (K * V x)): a gated convolution (as in Hyena: Poli et al. 2023, arXiv 2302.10866). In attention's place
    it starts from its values and its last layer, kernels that take the mean over the positions in reach, and gates
    that are half open.
    """

    Options: ClassVar[type[BlockOptions]] = ConvMixerOptions
    options: ConvMixerOptions
    trials: ClassVar[Trials] = (
        {"heads": 2, "width": 3, "reach": 2},
        {"heads": 2, "width": 2, "bias": False, "skip": "none", "reach": 1},
        {"heads": 1, "width": 4, "closing": 1e-6},
    )

    def module(self) -> AttentionTargetModule:
        return ConvMixerModule(self.options)


class ConvMixerModule(AttentionTargetModule):
    """Positions mixed by kernels."""

    def __init__(self, options: ConvMixerOptions) -> None:
        super().__init__(options)
        values = options.heads * options.width
        self.value, self.gate = (nn.Linear(options.channels, values, options.bias) for _ in range(2))
        with torch.no_grad():
            self.gate.weight.mul_(0.1)
        reached = 2 * options.reach + 1
        self.kernel = nn.Parameter(torch.full((values, 1, reached), 2.0 / reached))
        """Twice a mean, as gates begin at about a half."""

    def mix(self, x: Tensor) -> Tensor:
        values = self.value(x).flatten(0, -3).mT
        reach = self.kernel.shape[-1] // 2
        mixed = conv1d(pad(values, (reach, reach)), self.kernel, groups=len(self.kernel)).mT
        return by_head(self.gate(x).sigmoid() * mixed.view(*x.shape[:-1], -1), self.shape[0])
