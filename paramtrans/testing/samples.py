"""What checks are made on: small blocks, a task with random images, hosts around them, and batches."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from functools import cache, lru_cache
from typing import Any, ClassVar

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.func import functional_call

from paramtrans.api.adapter import BlockAdapter
from paramtrans.api.context import Context
from paramtrans.api.hosts import Hosts
from paramtrans.api.modules import initial
from paramtrans.api.objective import Batch
from paramtrans.api.options import BaseOptions
from paramtrans.api.rival import RivalCase
from paramtrans.api.specs import FeatureSpec
from paramtrans.api.stacking import Params
from paramtrans.api.task import Split, Task
from paramtrans.backends.host_runner import HostRunner
from paramtrans.errors import NameConflict, PluginLoadError
from paramtrans.plugins.registry import Entry
from paramtrans.testing.check import Subject, copied, differing, expect, named

CHANNELS, MODELS, BATCH = 4, 3, 5
SIDE, CLASSES = 4, 3
"""Of the sample task's slot, and of its outputs."""
AXES = 2
"""Axes of positions in the sample task's features."""


class SlotOptions(BaseOptions):
    """Size of the slot."""

    channels: PositiveInt = CHANNELS
    """Channels of the slot's features."""


class Slot(Task):
    """A small host with random images, for blocks of any kind."""

    Options: ClassVar[type[BaseOptions]] = SlotOptions
    options: SlotOptions
    metric = "accuracy"

    def __init__(self, options: SlotOptions) -> None:
        super().__init__(options)
        self.slot = FeatureSpec(options.channels, SIDE, SIDE)

    def former(self) -> nn.Module:
        channels = self.options.channels
        return nn.Sequential(nn.Conv2d(1, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU())

    def latter(self) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(self.options.channels * SIDE**2, CLASSES))

    def stream(self) -> dict[str, int]:
        return {"former.0.weight": 0, "former.1.weight": 0, "former.1.bias": 0}

    def split(self, name: str) -> Split:
        generator = torch.Generator().manual_seed(len(name))
        inputs = torch.randint(256, (4 * BATCH, 1, SIDE, SIDE), generator=generator)
        return Split(inputs.to(torch.uint8), torch.randint(CLASSES, (4 * BATCH,), generator=generator))

    def loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        losses = nn.functional.cross_entropy(outputs.flatten(0, 1), labels.flatten(), reduction="none")
        return losses.view(labels.shape).mean(1)


def trials(cls: Any, kind: str, given: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
    """The options to try a component with: its own `trials`, or `given` ones over the first of them."""
    tried = [dict(options) for options in cls.trials]
    if given:
        tried = [{**(tried[0] if tried else {}), **given}]
    if kind == "block_adapter":
        tried = [{"channels": CHANNELS, **options} for options in tried]
    return tried


def randomised(adapter: BlockAdapter, count: int = MODELS, seed: int = 0) -> Params:
    """Blocks far from their defaults: normalisation, statistics too, and whatever else begins alike."""
    return copied(_randomised(adapter, count, seed))


@lru_cache(maxsize=1000)
def _randomised(adapter: BlockAdapter, count: int, seed: int) -> Params:
    params = initial(adapter.module, range(seed, seed + count))
    generator = torch.Generator().manual_seed(seed)
    for tensor in adapter.spec.tensors:
        if tensor.kind.startswith("norm"):
            noise = torch.rand(params[tensor.name].shape, generator=generator)
            params[tensor.name] = noise + 0.5 if tensor.kind in ("norm_weight", "norm_variance") else noise - 0.5
        elif _begins_alike(params[tensor.name]):
            params[tensor.name] = params[tensor.name] + torch.rand(params[tensor.name].shape, generator=generator) - 0.5
    return params


def _begins_alike(tensor: Tensor) -> bool:
    """Whether a tensor `[models, ...]` does not depend on the seed: constants, and identities."""
    constant = bool((tensor == tensor.flatten()[0]).all())
    return constant or (len(tensor) > 1 and bool((tensor == tensor[:1]).all()))


def features(count: int = MODELS, channels: int = CHANNELS, size: tuple[int, ...] = (6, 5)) -> Tensor:
    """What enters a block: `[models, batch, channels, *size]`."""
    return torch.randn(count, BATCH, channels, *size, generator=torch.Generator().manual_seed(9))


def entering(adapter: BlockAdapter, size: tuple[int, ...] | None = None) -> Tensor:
    """What enters these blocks, with the channels where the adapter has them, and as many axes of positions."""
    inputs = features(MODELS, adapter.options.channels, (6, 5)[: adapter.axes] if size is None else size)
    return inputs.movedim(2, -1) if adapter.channels_last else inputs


def evaluate(adapter: BlockAdapter, params: Params, inputs: Tensor) -> Tensor:
    """One plain module after the other, in eval mode and double precision."""
    module = adapter.module().double().eval()
    double = {name: tensor.double() for name, tensor in params.items()}
    single = ({name: tensor[i] for name, tensor in double.items()} for i in range(len(inputs)))
    return torch.stack([functional_call(module, s, (x,)) for s, x in zip(single, inputs.double(), strict=True)])


@cache
def _around(seeds: tuple[int, ...], channels: int) -> tuple[Params, Params]:
    """Former and latter blocks."""
    task = Slot(SlotOptions(channels=channels))
    return initial(task.former, seeds), initial(task.latter, seeds)


def hosts(source: BlockAdapter, target: BlockAdapter | None, count: int = MODELS, seed: int = 0) -> Hosts:
    """Hosts of the sample task with a source block in each, and a trained target where an adapter is given."""
    seeds, channels = tuple(range(seed, seed + count)), source.options.channels
    trained = None if target is None else randomised(target, count, seed + 50)
    former, latter = (dict(params) for params in _around(seeds, channels))
    return Hosts(former, randomised(source, count, seed), latter, trained, seeds, Slot(SlotOptions()).stream())


_RUNNERS: dict[tuple[Any, ...], HostRunner] = {}


def runner(source: BlockAdapter, target: BlockAdapter) -> HostRunner:
    """Runs the sample task's hosts; one for all adapters of the same classes and options, because plans take time."""
    key = tuple(part for block in (source, target) for part in (type(block), block.options.model_dump_json()))
    if key not in _RUNNERS:
        _RUNNERS[key] = HostRunner(Slot(SlotOptions(channels=source.options.channels)), source, target)
    return _RUNNERS[key]


def context(given: Hosts, source: BlockAdapter, target: BlockAdapter) -> Context:
    """All that a translator may look at, probes too."""
    probes = torch.rand(2 * BATCH, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(8))
    start = randomised(target, len(given), seed=30)
    return Context(given, runner(source, target), probes, start=start)


def batch(given: Hosts) -> Batch:
    """Inputs and labels for each host, and its trained target where there is one."""
    generator = torch.Generator().manual_seed(2)
    inputs = torch.rand(len(given), BATCH, 1, SIDE, SIDE, generator=generator)
    return Batch(given, given.target, inputs, torch.randint(CLASSES, (len(given), BATCH), generator=generator))


def rival_case(source: BlockAdapter, target: BlockAdapter, seed: int = 0, pairs: bool = True) -> RivalCase:
    """Four hosts to fill, and six training pairs unless a rival is to do without."""
    return RivalCase(hosts(source, None, 4, seed=20), hosts(source, target, 6) if pairs else None, source, target, seed)


def neighbours(subject: Subject) -> list[Entry]:
    """Block adapters to try a component with: paramtrans' own, and those of the component's distribution."""
    near, every = {"paramtrans", subject.entry.provider.distribution}, subject.registry.of_kind("block_adapter")
    names = [entry.name for entry in every]
    return [e for e in every if e.provider.distribution in near and names.count(e.name) == 1 and loads(e)]


def loads(entry: Entry) -> bool:
    """Whether a component can be imported; that one cannot is told where it is checked itself, not by all others."""
    try:
        return hasattr(entry.resolve(), "trials")
    except PluginLoadError:
        return False


def partners(subject: Subject, every_trial: bool = False) -> list[BlockAdapter]:
    """The blocks of these adapters, in their first trial or in all; each is made once."""

    def make() -> list[list[BlockAdapter]]:
        adapters = []
        for entry in neighbours(subject):
            tried = trials(entry.resolve(), "block_adapter")
            with suppress(NameConflict):  # of blocks inside a block; told where these are checked themselves
                adapters.append([subject.registry.create("block_adapter", entry.name, **options) for options in tried])
        return adapters

    by_adapter = subject.once("partners", make)
    chosen = [adapter for tried in by_adapter for adapter in (tried if every_trial else tried[:1])]
    return [adapter for adapter in chosen if _stands_in_slot(adapter)]


def _stands_in_slot(adapter: BlockAdapter) -> bool:
    """Whether a block has the sizes of the sample task's slot."""
    return adapter.options.channels == CHANNELS and adapter.axes == AXES and adapter.keeps_shape


def source_of(subject: Subject) -> BlockAdapter:
    """The block that is translated, compared or changed where one is enough."""
    return partners(subject)[0]


def in_own_memory(given: Hosts) -> Hosts:
    """The same hosts in memory of their own."""
    parts: dict[str, Any] = {part: copied(params) for part, params in given.parts().items()}
    return replace(given, **parts)


def untouched(after: Hosts, before: Hosts) -> None:
    """Raise `CheckFailed` where hosts are not what they were."""
    parts = before.parts()
    changed = [f"{part}.{n}" for part, params in after.parts().items() for n in differing(params, parts[part])]
    expect(not changed, "the hosts untouched", f"{named(changed)} changed")
