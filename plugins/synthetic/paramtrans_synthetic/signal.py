"""Two kinds of signals to be told apart."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from paramtrans.api.options import BaseOptions
from paramtrans.api.specs import FeatureSpec
from paramtrans.api.task import Split
from paramtrans_synthetic.drawn import DrawnTask

LENGTH, KINDS = 128, 2
SLOW, FAST = 2.0, 14.0
"""Between which frequencies a chirp runs, in waves a signal; each is drawn from half to one and a half times that."""


class ChirpOptions(BaseOptions):
    """Sizes of the host, and how hard the task is."""

    channels: PositiveInt = 8
    """Channels of the features that enter the slot."""
    out: PositiveInt = 12
    """Channels of those that leave it, at half as many positions."""
    noise: NonNegativeFloat = 1.5
    """Standard deviation of what is added to each value of a signal; a chirp goes from -1 to 1."""


class Chirps(DrawnTask):
    """Whether the frequency of a noisy signal of 128 values rises (1) or falls (0).

    Former: convolution, BatchNorm, ReLU, at half of the positions. The block goes down to a quarter, and to another
    number of channels. Latter: means over four positions each, linear.
    """

    Options: ClassVar[type[BaseOptions]] = ChirpOptions
    options: ChirpOptions
    metric = "auc"

    def __init__(self, options: ChirpOptions) -> None:
        super().__init__(options)
        self.slot = FeatureSpec(options.channels, LENGTH // 2)

    def leaving(self) -> FeatureSpec:
        return FeatureSpec(self.options.out, LENGTH // 4)

    def former(self) -> nn.Module:
        channels = self.options.channels
        return nn.Sequential(nn.Conv1d(1, channels, 9, 2, 4, bias=False), nn.BatchNorm1d(channels), nn.ReLU())

    def latter(self) -> nn.Module:
        return nn.Sequential(nn.AvgPool1d(4), nn.Flatten(), nn.Linear(self.options.out * LENGTH // 16, KINDS))

    def drawn(self, count: int, generator: torch.Generator) -> Split:
        labels = torch.randint(KINDS, (count,), generator=generator)
        slow, fast = (rate * (0.5 + torch.rand(count, 1, generator=generator)) for rate in (SLOW, FAST))
        rises = labels[:, None] == 1
        begin, end = torch.where(rises, slow, fast), torch.where(rises, fast, slow)
        time = torch.arange(LENGTH) / LENGTH
        waves = begin * time + (end - begin) * time.square() / 2 + torch.rand(count, 1, generator=generator)
        noise = self.options.noise * torch.randn(count, LENGTH, generator=generator)
        return Split((torch.sin(2 * torch.pi * waves) + noise)[:, None], labels)

    def loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return cross_entropy(outputs.flatten(0, 1), labels.flatten(), reduction="none").view(labels.shape).mean(1)
