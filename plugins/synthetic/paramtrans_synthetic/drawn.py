"""What tasks share whose examples are drawn from a seed."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path

import torch
from torch import Tensor

from paramtrans.api.options import BaseOptions
from paramtrans.api.task import Split, Task

SEED = 20240117
COUNTS = {"train": 4096, "holdout": 1024, "test": 2048}


class DrawnTask(Task):
    """A task whose examples are drawn, the same ones each time."""

    def __init__(self, options: BaseOptions) -> None:
        super().__init__(options)
        self._splits: dict[str, Split] = {}

    @abstractmethod
    def drawn(self, count: int, generator: torch.Generator) -> Split:
        """That many examples with their labels; all chance comes from the generator."""

    def prepare(self, cache: Path) -> None:
        generator = torch.Generator().manual_seed(SEED)
        self._splits = {name: self.drawn(count, generator) for name, count in COUNTS.items()}

    def split(self, name: str) -> Split:
        return self._splits[name]

    def to_input(self, raw: Tensor) -> Tensor:
        return raw
