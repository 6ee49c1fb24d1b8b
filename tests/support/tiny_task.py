"""A one-file plugin for tests: 8×8 grey images in four classes that a small host learns in a few steps."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import ClassVar

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from paramtrans import BaseOptions, Component, FeatureSpec, Split, Task, hookimpl

SIDE, CLASSES = 8, 4
NAP = float(os.environ.get("TINY_NAP", "0"))
"""Seconds that every batch takes longer, so that a test can interrupt a stage."""
COUNTS = {"train": 96, "holdout": 32, "test": 48}


class TinyOptions(BaseOptions):
    """Sizes of the host."""

    channels: PositiveInt = 4
    """Channels of the slot's features."""


class Tiny(Task):
    """A noisy picture of one of four fixed patterns."""

    Options: ClassVar[type[BaseOptions]] = TinyOptions
    options: TinyOptions
    metric = "accuracy"

    def __init__(self, options: TinyOptions) -> None:
        super().__init__(options)
        self.slot = FeatureSpec(options.channels, SIDE // 2, SIDE // 2)
        self._splits: dict[str, Split] = {}

    def former(self) -> nn.Module:
        channels = self.options.channels
        return nn.Sequential(
            nn.Conv2d(1, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(), nn.MaxPool2d(2)
        )

    def latter(self) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(self.options.channels * (SIDE // 2) ** 2, CLASSES))

    def prepare(self, cache: Path) -> None:
        generator = torch.Generator().manual_seed(7)
        patterns = torch.rand(CLASSES, SIDE, SIDE, generator=generator)
        for name, count in COUNTS.items():
            labels = torch.randint(CLASSES, (count,), generator=generator)
            noise = 0.5 * torch.rand(count, SIDE, SIDE, generator=generator)
            inputs = (255 * (0.5 * patterns[labels] + noise)).to(torch.uint8)
            self._splits[name] = Split(inputs, labels)

    def split(self, name: str) -> Split:
        return self._splits[name]

    def to_input(self, raw: Tensor) -> Tensor:
        time.sleep(NAP)
        return raw.unsqueeze(-3).float() / 255

    def loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return cross_entropy(outputs.flatten(0, 1), labels.flatten(), reduction="none").view(labels.shape).mean(1)


@hookimpl
def paramtrans_tasks() -> list[Component]:
    return [Component("tiny", "noisy 8×8 patterns, for tests", f"{__name__}:Tiny")]
