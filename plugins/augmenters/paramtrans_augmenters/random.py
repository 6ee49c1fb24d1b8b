"""Random masking and noise addition (KT, section 4, Table 5)."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from paramtrans.api.augmenter import Augmenter
from paramtrans.api.options import BaseOptions, Trials
from paramtrans.api.stacking import Params


class MaskOptions(BaseOptions):
    """How much is masked."""

    share: float = Field(ge=0, le=1)
    """Probability that a value becomes zero (the paper's m)."""


class Mask(Augmenter):
    """Sets each value to zero with probability `share`."""

    Options: ClassVar[type[BaseOptions]] = MaskOptions
    options: MaskOptions
    trials: ClassVar[Trials] = ({"share": 0.3},)

    def __call__(self, params: Params, generator: torch.Generator) -> Params:
        return {name: tensor * (_uniform(tensor, generator) >= self.options.share) for name, tensor in params.items()}


class NoiseOptions(BaseOptions):
    """How strong the noise is."""

    scale: float = Field(ge=0)
    """Standard deviation of the noise (the paper's n)."""


class Noise(Augmenter):
    """Adds `scale` · N(0, 1) to each value."""

    Options: ClassVar[type[BaseOptions]] = NoiseOptions
    options: NoiseOptions
    trials: ClassVar[Trials] = ({"scale": 0.1},)

    def __call__(self, params: Params, generator: torch.Generator) -> Params:
        return {name: tensor + self.options.scale * _normal(tensor, generator) for name, tensor in params.items()}


# Drawn on the generator's device, so that a seed gives the same numbers wherever the parameters are.
def _uniform(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.rand(like.shape, generator=generator, device=generator.device).to(like.device)


def _normal(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=generator, device=generator.device).to(like.device)
