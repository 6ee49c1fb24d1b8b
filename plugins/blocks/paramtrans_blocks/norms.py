"""Normalisations in each other's place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import PositiveFloat
from torch import Tensor, nn
from torch.nn.functional import layer_norm, rms_norm

from paramtrans.api.adapter import BlockAdapter, BlockOptions, Part
from paramtrans.api.options import Trials
from paramtrans.api.stacking import Params
from paramtrans.errors import SpecMismatch

EPS = ("eps", "variance_epsilon")
"""Names that libraries give it."""


class NormOptions(BlockOptions):
    """What a normalisation over the last axis has."""

    eps: PositiveFloat = 1e-5
    """Is added to the variance, or mean square."""
    bias: bool = True
    """Whether something is added behind it."""


class Norm(BlockAdapter):
    """A normalisation over channels, with a factor for each and with or without a bias.

    In place of another one it starts from the factors and biases that fit best what left that, channel by channel.
    """

    Options: ClassVar[type[BlockOptions]] = NormOptions
    options: NormOptions
    trials: ClassVar[Trials] = ({}, {"bias": False, "eps": 1e-6})
    channels_last: ClassVar[bool] = True
    positionwise: ClassVar[bool] = True
    centred: ClassVar[bool]
    """Whether the mean is taken out."""

    @classmethod
    def options_for(cls, part: Part) -> Mapping[str, Any]:
        channels = part.entering.shape[-1]
        shapes = [tuple(tensor.shape) for tensor in part.module.parameters()]
        if part.entering.shape != part.leaving.shape or any(shape != (channels,) for shape in shapes):
            raise SpecMismatch(f"it is a {type(part.module).__name__}, no normalisation over the last axis")
        eps = next((getattr(part.module, name) for name in EPS if getattr(part.module, name, None)), 1e-5)
        return {"channels": channels, "eps": eps, "bias": len(shapes) > 1}

    def module(self) -> nn.Module:
        return NormModule(self.options, self.centred)

    @torch.no_grad()
    def warm_start(self, part: Part) -> Params | None:
        plain, wanted = (
            features.flatten(0, -2).double()
            for features in (normalised(part.entering, self.options.eps, self.centred), part.leaving)
        )
        if self.options.bias:
            centre, aim = plain.mean(0), wanted.mean(0)
            factor = ((plain - centre) * (wanted - aim)).sum(0) / (plain - centre).square().sum(0).clamp_min(1e-12)
            params = {"weight": factor, "bias": aim - factor * centre}
        else:
            params = {"weight": (plain * wanted).sum(0) / plain.square().sum(0).clamp_min(1e-12)}
        return {name: tensor[None].to(part.entering) for name, tensor in params.items()}


class RmsNorm(Norm):
    """x / √(mean x² + eps) · w [+ b] (Zhang and Sennrich 2019, arXiv 1910.07467, equation 4); a LayerNorm is that where
    the mean of what enters is zero."""

    centred = False


class LayerNorm(Norm):
    """(x − mean) / √(variance + eps) · w [+ b] (Ba et al. 2016, arXiv 1607.06450, equation 4)."""

    centred = True


def normalised(x: Tensor, eps: float, centred: bool) -> Tensor:
    """`[..., channels]` with mean square one, and with `centred` the mean taken out first."""
    return layer_norm(x, x.shape[-1:], eps=eps) if centred else rms_norm(x, x.shape[-1:], eps=eps)


class NormModule(nn.Module):
    """`[..., channels]` → the same shape."""

    def __init__(self, options: NormOptions, centred: bool) -> None:
        super().__init__()
        self.eps, self.centred = options.eps, centred
        # Drawn, as all blocks are; near what other normalisations begin with.
        self.weight = nn.Parameter(1 + 0.01 * torch.randn(options.channels))
        self.bias = nn.Parameter(torch.zeros(options.channels)) if options.bias else None

    def forward(self, x: Tensor) -> Tensor:
        scaled = normalised(x, self.eps, self.centred) * self.weight
        return scaled if self.bias is None else scaled + self.bias
