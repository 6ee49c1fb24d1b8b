"""A regression on rows of a table."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor, nn

from paramtrans.api.options import BaseOptions
from paramtrans.api.specs import FeatureSpec
from paramtrans.api.task import Split
from paramtrans_synthetic.drawn import DrawnTask

COLUMNS = 10
MEAN, DEVIATION = 14.4, 4.9
"""Of what is to be met, by which it is brought to a usual size."""


class FriedmanOptions(BaseOptions):
    """Sizes of the host, and how hard the task is."""

    channels: PositiveInt = 16
    """Channels of the slot's features."""
    noise: NonNegativeFloat = 1.0
    """Standard deviation of what is added to the number that is to be met."""


class Friedman(DrawnTask):
    """10 sin(π x₁ x₂) + 20 (x₃ - ½)² + 10 x₄ + 5 x₅ + noise, of ten columns in [0, 1] (Friedman, 1991, MARS, eq. 56).

    Former: linear, ReLU. Latter: linear.
    """

    Options: ClassVar[type[BaseOptions]] = FriedmanOptions
    options: FriedmanOptions
    metric = "r2"

    def __init__(self, options: FriedmanOptions) -> None:
        super().__init__(options)
        self.slot = FeatureSpec(options.channels)

    def former(self) -> nn.Module:
        return nn.Sequential(nn.Linear(COLUMNS, self.options.channels), nn.ReLU())

    def latter(self) -> nn.Module:
        return nn.Linear(self.options.channels, 1)

    def stream(self) -> dict[str, int]:
        return {"former.0.weight": 0, "former.0.bias": 0, "latter.weight": 1}

    def drawn(self, count: int, generator: torch.Generator) -> Split:
        rows = torch.rand(count, COLUMNS, generator=generator)
        first, second, third, fourth, fifth = rows.T[:5]
        wanted = 10 * torch.sin(math.pi * first * second) + 20 * (third - 0.5).square() + 10 * fourth + 5 * fifth
        wanted = wanted + self.options.noise * torch.randn(count, generator=generator)
        return Split(rows, (wanted - MEAN) / DEVIATION)

    def loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return (outputs.squeeze(-1) - labels).square().mean(1)
