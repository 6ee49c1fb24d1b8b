"""The paper's host on MNIST, with random flips, batches of 128, SGD: what every training contestant trains."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import nn

from paramtrans import components, config
from paramtrans.api import modules
from paramtrans.api.hosts import Hosts
from paramtrans.backends import host_runner
from paramtrans.builder import Builder
from paramtrans.config import HostTraining
from paramtrans.storage.cache import cache_dir

EXAMPLE = Path(__file__).parents[1] / "examples" / "mnist_conv_to_conv.toml"
BATCH = 128


@dataclass(frozen=True)
class Size:
    """How long everything is measured."""

    rounds: int
    steps: int
    """Training steps in a turn."""
    hosts: int
    """Hosts evaluated in a turn."""
    images: int
    """Test images they are evaluated on."""
    pairs: int
    """Pairs that are read."""


FULL = Size(rounds=7, steps=40, hosts=100, images=10_000, pairs=10_000)
QUICK = Size(rounds=3, steps=20, hosts=16, images=10_000, pairs=8_192)
PICO = Size(rounds=1, steps=1, hosts=2, images=100, pairs=16)


class Setting:
    """The config's components, with the data ready."""

    def __init__(self, size: Size, device: str = "cpu") -> None:
        self.size, self.device, self.on_gpu = size, device, torch.device(device).type == "cuda"
        registry = components()
        document = config.override(config.read(EXAMPLE), [f"run.device={device}", "translator.name=mixer"])
        document["translator"] = {"name": "mixer", "layers": 8}
        document["objectives"] = [{"name": "mse"}]
        document["source"]["read"] = "weights"
        document["zoo"].pop("pairs", None)
        self.builder = Builder(config.validate(document, registry), registry)
        self.cache = cache_dir(None)
        self.builder.task.prepare(self.cache)

    @cached_property
    def training(self) -> HostTraining:
        """One turn of the paper's training."""
        return HostTraining(steps=self.own_steps, batch_size=BATCH, lr=0.01, momentum=0.9)

    @property
    def own_steps(self) -> int:
        """Training steps of ours in a turn: more on a GPU, where a shard has thousands, and a few take no time."""
        return self.size.steps * (10 if self.on_gpu else 1)

    def seeds(self, count: int) -> list[int]:
        return list(range(count))

    def host(self) -> nn.Module:
        """One whole host, as plain PyTorch."""
        torch.manual_seed(0)
        return host_runner.network(self.builder.task, self.builder.source).to(self.device)

    def hosts(self, count: int) -> Hosts:
        """Untrained hosts, each with a target block, in the order of their seeds."""
        builder = self.builder
        hosts = host_runner.untrained(builder.task, builder.source, self.seeds(count))
        return replace(hosts, target=modules.initial(builder.target.module, self.seeds(count))).to(self.device)
