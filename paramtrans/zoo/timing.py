"""A few real training steps on one shard, for what they take; and what comes of them: barely trained hosts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property, partial

import torch

from paramtrans.api.hosts import Hosts
from paramtrans.api.stacking import Params, split
from paramtrans.builder import Builder
from paramtrans.config.schema import HostTraining
from paramtrans.zoo import host_training

STEPS = 2
"""Training steps that are timed."""


class Trial:
    """Steps 1 and 2 of one shard, begun."""

    def __init__(self, builder: Builder, count: int, hosts: Params | None = None) -> None:
        """`hosts` are those of another trial of the same zoo."""
        self.builder, self.count = builder, count
        self.seeds = list(range(count))
        self.hosts = hosts or self._train(1)

    def step1(self) -> float:
        """Seconds of step 1 for the shard."""
        return self._all(self._train, self.builder.config.zoo.step1)

    def step2(self) -> float:
        """Seconds of step 2 for the shard."""
        return self._all(self._targets, self.builder.config.zoo.step2)

    @cached_property
    def stack(self) -> Hosts:
        """Barely trained hosts with their targets."""
        target = split(self._targets(1), "target")
        return Hosts.from_network(self.hosts, target, self.seeds, self.builder.task.stream())

    def _all(self, train: Callable[[int], Params], options: HostTraining) -> float:
        """A longer run less a shorter one, so that preparation does not count; where something else slowed the shorter
        one, so that it took as long, the longer one as a whole."""
        shorter, longer = (_timed(partial(train, count)) for count in (1, 1 + STEPS))
        step = (longer - shorter) / STEPS if longer > shorter else longer / (1 + STEPS)
        return step * options.length(len(self.builder.task.split("train")))

    def _train(self, count: int) -> Params:
        options = _short(self.builder.config.zoo.step1, count)
        return host_training.train_hosts(
            self.builder.task, self.builder.source, options, self.seeds, self.builder.device
        )

    def _targets(self, count: int) -> Params:
        task, target, options = self.builder.task, self.builder.target, _short(self.builder.config.zoo.step2, count)
        return host_training.train_targets(task, target, self.hosts, options, self.seeds, self.builder.device)


@contextmanager
def held_by(module: torch.nn.Module) -> Iterator[dict[int, int]]:
    """Bytes by address of all that is kept for going backwards, but for the module's own weights."""
    held: dict[int, int] = {}
    weights = {parameter.untyped_storage().data_ptr() for parameter in module.parameters()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            held[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield held


def _timed(do: Callable[[], object]) -> float:
    started = time.monotonic()
    do()
    return time.monotonic() - started


def _short(options: HostTraining, count: int) -> HostTraining:
    return options.model_copy(update={"steps": count, "epochs": None})
