"""A one-file plugin for tests: vectors, no images, with numbers to be met, no classes."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from paramtrans import BaseOptions, Component, FeatureSpec, Split, Task, hookimpl

LONG, COUNTS = 6, {"train": 48, "holdout": 16, "test": 24}


class Vectors(Task):
    """The sum of a vector."""

    metric = "r2"

    def __init__(self, options: BaseOptions) -> None:
        super().__init__(options)
        self.slot = FeatureSpec(4, 2, 2)
        self._splits: dict[str, Split] = {}

    def former(self) -> nn.Module:
        return nn.Sequential(nn.Linear(LONG, 16), nn.ReLU(), nn.Unflatten(1, (4, 2, 2)))

    def latter(self) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(16, 1))

    def prepare(self, cache: Path) -> None:
        generator = torch.Generator().manual_seed(7)
        for name, count in COUNTS.items():
            inputs = torch.rand(count, LONG, generator=generator)
            self._splits[name] = Split(inputs, inputs.sum(1))

    def split(self, name: str) -> Split:
        return self._splits[name]

    def to_input(self, raw: Tensor) -> Tensor:
        return raw

    def loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return (outputs.squeeze(-1) - labels).square().mean(1)


@hookimpl
def paramtrans_tasks() -> list[Component]:
    return [Component("vectors", "sums of vectors, for tests", f"{__name__}:Vectors")]
