"""Positions mixed by a convolution over them, in place of attention."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn.functional import conv1d, pad

from paramtrans.api.adapter import BlockOptions
from paramtrans.api.block_module import Keep
from paramtrans.api.options import Trials
from paramtrans.api.stacking import Params
from paramtrans_blocks.attention_target import AttentionTarget, AttentionTargetOptions
from paramtrans_blocks.heads import AttentionModule, Heads
from paramtrans_blocks.positions import by_head


class ConvMixerOptions(AttentionTargetOptions):
    """Sizes of a convolutional mixer."""

    reach: PositiveInt = 8
    """Positions to each side that a position is made of; before it alone, where that is causal."""


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
        {"heads": 2, "width": 2, "causal": True, "skip": "none", "reach": 2},
    )

    def module(self) -> AttentionModule:
        return ConvMixerModule(self.options)

    def from_heads(self, params: Params, heads: Heads, entering: Tensor) -> Params:
        times = self.options.heads // heads.options.kept_heads
        layers = {name: params[name] for name in ("value.weight", "value.bias") if name in params}
        return {
            name: layer.unflatten(1, (-1, self.options.width)).repeat_interleave(times, 1).flatten(1, 2)
            for name, layer in layers.items()
        }


class ConvMixerModule(AttentionModule):
    """Positions mixed by kernels."""

    def __init__(self, options: ConvMixerOptions) -> None:
        super().__init__(options)
        values = options.heads * options.width
        self.value, self.gate = (nn.Linear(options.channels, values, options.bias) for _ in range(2))
        with torch.no_grad():
            self.gate.weight.mul_(0.1)
        self.sides = (options.reach, 0 if options.causal else options.reach)
        reached = sum(self.sides) + 1
        self.kernel = nn.Parameter(torch.full((values, 1, reached), 2.0 / reached))
        """Twice a mean, as gates begin at about a half."""

    def mix(self, x: Tensor, keep: Keep) -> Tensor:
        made = by_head(self.value(x), 1)
        values = keep(made, made[..., :0])[0].squeeze(-3)
        mixed = conv1d(pad(values.flatten(0, -3).mT, self.sides), self.kernel, groups=len(self.kernel)).mT
        mixed = mixed.view(values.shape)[..., -x.shape[-2] :, :]
        return by_head(self.gate(x).sigmoid() * mixed, self.options.heads)
