"""As many hosts at once through `torch.func.vmap`, otherwise trained as ours are."""

from __future__ import annotations

from itertools import islice

import torch

from benchmarks.setting import BATCH, Setting
from benchmarks.turns import rate
from paramtrans.api import modules
from paramtrans.backends import vmap
from paramtrans.zoo import host_training


class Vmapped:
    """The same models on the same batches, with the same optimiser."""

    def __init__(self, setting: Setting, hosts: int) -> None:
        self.setting, self.hosts = setting, hosts
        self.steps = max(1, setting.size.steps // 4) if setting.on_gpu else setting.size.steps  # slow, and steady
        builder = setting.builder
        self.network = vmap.Vmap(setting.host())
        self.params = modules.initial(setting.host, setting.seeds(hosts), setting.device)
        leaves = [self.params[name].requires_grad_() for name in modules.trained_names(setting.host())]
        self.optimizer = torch.optim.SGD(leaves, 0.01, 0.9)
        self.batches = host_training.batches_of(
            builder.task, builder.task.split("train"), setting.seeds(hosts), BATCH, setting.device
        )

    def __call__(self) -> float:
        """Model-images per second over a turn."""
        return rate(self.hosts * self.steps * BATCH, self._train)

    def _train(self) -> None:
        for inputs, labels in islice(self.batches, self.steps):
            self.optimizer.zero_grad()
            outputs = self.network(self.params, inputs, training=True)
            self.setting.builder.task.loss(outputs, labels).sum().backward()
            self.optimizer.step()
