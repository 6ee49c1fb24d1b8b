"""The zoos of one run: the hosts it learns from, of one task or several, and those it is reported on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from paramtrans.api.adapter import check_fit
from paramtrans.api.hosts import Hosts
from paramtrans.builder import Builder
from paramtrans.errors import SpecMismatch
from paramtrans.plugins.registry import Registry
from paramtrans.zoo.zoo import ROLES, Zoo


class Zoos:
    """Most runs have one zoo. `zoo.also` adds one for each further task, and `[report]` one for the report hosts."""

    def __init__(self, builder: Builder, cache: Path, registry: Registry) -> None:
        config = builder.config
        needs_own = config.report is None or config.report.begin != "fresh"
        self.main = Zoo(builder, cache, ROLES if needs_own else ROLES[:2])
        """That of the run's own task."""
        self.learning = [self.main]
        """Those whose training hosts the translator learns from."""
        for task in config.zoo.also:
            self.learning.append(Zoo(Builder(config.with_task(task), registry), cache, ROLES[:2]))
        self.reported = self.main
        """The one whose report hosts are reported on."""
        if config.report is not None:
            begin = (config.report.begin, self.main) if needs_own else None
            self.reported = Zoo(Builder(config.reported(), registry), cache, ROLES[2:], begin)

    @property
    def all(self) -> list[Zoo]:
        """Each zoo once, behind those it begins with."""
        return list(dict.fromkeys([*self.learning, self.reported]))

    def prepare(self, cache: Path) -> None:
        """Make all data ready."""
        for zoo in self.all:
            zoo.builder.prepare(cache)

    def unfit(self) -> Iterator[str]:
        """What keeps the blocks out of the hosts of further tasks, or objectives from learning from them."""
        builder = self.main.builder
        for zoo in self.all[1:]:
            task = zoo.builder.task
            for name, adapter in (("source", builder.source), ("target", builder.target)):
                try:
                    check_fit(f"{name} block", adapter, task.slot, task.leaving())
                except SpecMismatch as error:
                    yield f"task {zoo.config.task.name}: {error}"
            if zoo in self.learning and zoo.builder.measured_by != builder.measured_by:
                by, wanted = zoo.builder.measured_by.heading, builder.measured_by.heading
                yield f"task {zoo.config.task.name}: is measured by {by}, the run's own task by {wanted}"
        if len(self.learning) > 1:
            names = [
                p.name for p, (_, o) in zip(builder.config.objectives, builder.objectives(), strict=True) if o.examples
            ]
            yield from (
                f"zoo.also: objective {name} looks at examples, which are of one task; use mse" for name in names
            )

    def train(self) -> Hosts:
        """What the translator learns from: training hosts, and snapshots of them."""
        return Hosts.of([zoo.load(role) for zoo in self.learning for role in ("train", *zoo.snapshots)])

    def select(self) -> list[tuple[Builder, Hosts]]:
        """What its best epoch is chosen on, task by task."""
        return [(zoo.builder, zoo.load("select")) for zoo in self.learning]

    def report(self) -> Hosts:
        """What all methods are reported on."""
        return self.reported.load("report")

    def pairs(self) -> Hosts | None:
        """The training hosts that have a trained target; None without any."""
        stacks = [pairs for zoo in self.learning if (pairs := zoo.pairs()) is not None]
        return Hosts.of(stacks) if stacks else None

    def check_again(self) -> None:
        """Raise `StoreError` where hosts from elsewhere are not all there, before anything is forgotten."""
        for zoo in self.all:
            if zoo.config.zoo.origin:
                zoo.missing(1)

    def newest(self) -> int:
        """When the last of their shards was written."""
        return max(zoo.newest() for zoo in self.all)

    def seconds(self) -> float:
        """What the hosts and pairs that the translator learns from took to train."""
        return sum(zoo.seconds() for zoo in self.learning)

    def counts(self) -> dict[str, int]:
        """Hosts of each role, and `snapshots` of those to train where there are some."""
        return self._by_role(Zoo.count)

    def _by_role(self, number: Callable[[Zoo, str], int]) -> dict[str, int]:
        counts = {role: sum(number(zoo, role) for zoo in self.learning) for role in ROLES[:2]}
        counts["report"] = number(self.reported, "report")
        snapshots = sum(number(zoo, role) for zoo in self.learning for role in zoo.snapshots)
        return counts | ({"snapshots": snapshots} if snapshots else {})

    def used(self) -> dict[str, int]:
        """How many hosts of each role were used."""
        return self._by_role(Zoo.used)

    def diverged(self) -> dict[str, list[int]]:
        """Seeds of the hosts that were left out, by role."""
        diverged: dict[str, list[int]] = {}
        for zoo in self.all:
            for role, lost in zoo.diverged.items():
                diverged.setdefault(role, []).extend(lost)
        return diverged
