"""Methods beside the run's own translator: probes, and translators that go on from each other."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from paramtrans.api import stacking as stacks
from paramtrans.api.context import Context
from paramtrans.api.hosts import Hosts
from paramtrans.api.probes import ProbeCase, Probes
from paramtrans.api.runner import Runner
from paramtrans.api.stacking import Params
from paramtrans.api.translator import Translator
from paramtrans.utils import seeds


@dataclass(frozen=True)
class Filled:
    """Target blocks for some hosts, and what they took."""

    blocks: Params
    seconds: float | None = None
    """Wall-clock time for one host, probes included, while all of them are filled together; None: not known."""
    images: int = 0
    """Examples of the task that were looked at, for each host."""

    def to(self, device: torch.device | str) -> Filled:
        return replace(self, blocks={name: tensor.to(device) for name, tensor in self.blocks.items()})


class Method:
    """A chain of translators with their probes. Without one of its own at its head, it goes on from `start`."""

    def __init__(self, translators: Sequence[Translator], probes: Probes | None) -> None:
        self.translators, self.probes = translators, probes

    def fill(self, hosts: Hosts, runner: Runner, seed: int, start: Filled | None = None) -> Filled:
        """Target blocks for these hosts, which are where they are to be computed; all chance comes from `seed`."""
        started = time.monotonic()
        inputs = self._inputs(hosts, runner, seed)
        blocks = start.blocks if start else None
        for number, translator in enumerate(self.translators):
            own_inputs = self.probes is not None and self.probes.own_inputs
            context = Context(hosts, runner, inputs, own_inputs, blocks, seeds.derive(seed, "translator", number))
            blocks = translator.translate(hosts.source, context)
        assert blocks is not None  # a method has a translator, or a start
        images = len(inputs) if inputs is not None and self.probes is not None and self.probes.real else 0
        seconds = (time.monotonic() - started) / len(hosts)
        if start is None:
            return Filled(blocks, seconds, images)
        return Filled(blocks, seconds + (start.seconds or 0.0), max(images, start.images))

    def _inputs(self, hosts: Hosts, runner: Runner, seed: int) -> torch.Tensor | None:
        if self.probes is None or not any(translator.needs_probes for translator in self.translators):
            return None
        shape = tuple(runner.task.to_input(runner.task.split("train").inputs[:1]).shape[1:])
        generator = torch.Generator().manual_seed(seeds.derive(seed, "probes"))
        device = next(iter(hosts.source.values())).device
        return self.probes.draw(ProbeCase(shape, generator, runner.task, hosts, self.translators[0].source)).to(device)

    def check(self, hosts: Hosts, runner: Runner) -> None:
        """Raise `SpecMismatch` where these hosts cannot be translated; what needs probes is tried in the run alone."""
        if self.translators and not any(translator.needs_probes for translator in self.translators):
            blocks = self.fill(hosts, runner, seed=0).blocks
            stacks.check(blocks, self.translators[-1].target.spec, "the last translator")
