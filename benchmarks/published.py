"""The published way to train hosts: one at a time, from a DataLoader with torchvision transforms."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice

from torch import Tensor, nn, optim
from torch.utils.data import DataLoader, Subset
from torchvision.datasets import MNIST
from torchvision.transforms import Compose, RandomHorizontalFlip, ToTensor

from benchmarks.setting import BATCH, Setting
from benchmarks.turns import rate

WORKERS = (0, 1, 2) if (os.cpu_count() or 1) < 8 else (0, 4, 8)


class Published:
    """Its transforms are the published ones without RandomGrayscale, which does nothing to grey images."""

    def __init__(self, setting: Setting, workers: int | None = None) -> None:
        """By default with the number of workers that a trial finds fastest."""
        from paramtrans_mnist import shipped

        self.setting = setting
        data = MNIST(
            str(shipped.extract(setting.cache / "data")), transform=Compose([RandomHorizontalFlip(), ToTensor()])
        )
        self.data = Subset(data, range(len(setting.builder.task.split("train"))))
        self.host = setting.host()
        self.optimizer = optim.SGD(self.host.parameters(), 0.01, 0.9)
        self.workers = self._fastest() if workers is None else workers
        self.batches = self._endless(self.workers)

    def __call__(self) -> float:
        """Model-images per second over a turn."""
        return rate(self.setting.size.steps * BATCH, lambda: self._train(self.batches))

    def _fastest(self) -> int:
        trials = {}
        for workers in WORKERS:
            batches = self._endless(workers)
            self._train(batches)
            trials[workers] = rate(1, lambda share=batches: self._train(share))
        return max(trials, key=lambda workers: trials[workers])

    def _train(self, batches: Iterator[tuple[Tensor, Tensor]]) -> None:
        for inputs, labels in islice(batches, self.setting.size.steps):
            inputs, labels = inputs.to(self.setting.device), labels.to(self.setting.device)
            self.optimizer.zero_grad()
            nn.functional.cross_entropy(self.host(inputs), labels).backward()
            self.optimizer.step()

    def _endless(self, workers: int) -> Iterator[tuple[Tensor, Tensor]]:
        loader = DataLoader(self.data, BATCH, shuffle=True, num_workers=workers)
        while True:
            yield from loader
