"""What a run will do and cost, told before anything is started."""

from __future__ import annotations

import logging
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from paramtrans import stacked
from paramtrans.engine import Run
from paramtrans.errors import DataError
from paramtrans.evaluation import translator_costs
from paramtrans.hosts import Hosts, split
from paramtrans.learned import LearnedTranslator
from paramtrans.progress import duration
from paramtrans.protocols import Context
from paramtrans.recipes import Shard
from paramtrans.sweep import Sweep
from paramtrans.training import Trainer
from paramtrans.trial import Trial, held_by
from paramtrans.zoo import ROLES, Zoo

logger = logging.getLogger(__name__)

BYTES = 4
"""Of a float32."""
TIMED_HOSTS, TIMED_FLOPS = 64, 5e8
"""Hosts in a timed step of the translator: so many at most, and no more than come to so many operations, but one.
Larger batches are taken to cost as much a host."""


@dataclass(frozen=True)
class Plan:
    """Estimates, for this machine as busy as it is now: hosts and targets still to train, and the whole of step 3."""

    run_dir: str
    zoo_dir: str
    hosts: dict[str, int]
    """Hosts of each role, `snapshots` where there are some, and `to_train`: hosts not in the cache yet."""
    targets_to_train: int
    seconds: dict[str, float]
    folders: dict[str, int]
    """Bytes in each folder of hosts or targets that it uses, once they are trained."""
    memory_bytes: int

    translator: dict[str, Any] | None
    """Its name, parameters, and the FLOPs of one translation; parameters 0 for one that learns nothing. `again` where
    another run of the sweep learns the same, so that it is not trained twice."""

    @property
    def disk_bytes(self) -> int:
        return sum(self.folders.values())

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "disk_bytes": self.disk_bytes}

    def describe(self) -> str:
        """A few lines for people."""
        hosts = ", ".join(f"{count:,} {what}" for what, count in self.hosts.items() if what != "to_train")
        return "\n".join(
            [
                f"run     {self.run_dir}",
                f"zoo     {self.zoo_dir}",
                f"hosts   {hosts}; {self.hosts['to_train']:,} still to train",
                f"targets {self.targets_to_train:,} still to train",
                f"learns  {_translator(self.translator)}",
                *_totals(self.seconds, self.disk_bytes, self.memory_bytes),
            ]
        )


@dataclass(frozen=True)
class SweepPlan:
    """The plans of a sweep's runs; hosts and targets that an earlier run of it trains are not counted again."""

    sweep_dir: str
    runs: list[Plan]

    def as_dict(self) -> dict[str, Any]:
        runs = [run.as_dict() for run in self.runs]
        own = {"sweep_dir": self.sweep_dir, "runs": runs, "seconds": self.seconds, "disk_bytes": self.disk_bytes}
        return {**own, "zoos": len(self.zoos), "translators": self.translators}

    @property
    def seconds(self) -> dict[str, float]:
        """Of all runs, by stage."""
        return {
            name: round(sum(r.seconds[name] for r in self.runs), 1) for name in ("zoo_step1", "zoo_step2", "training")
        }

    @property
    def zoos(self) -> list[str]:
        """Folders of hosts, each once."""
        return list(dict.fromkeys(folder for run in self.runs for folder in run.folders if "targets" not in folder))

    @property
    def translators(self) -> int:
        """How many are trained."""
        learning = [run.translator for run in self.runs if run.translator and run.translator["parameters"]]
        return sum(not translator["again"] for translator in learning)

    @property
    def disk_bytes(self) -> int:
        folders: dict[str, int] = {}
        for run in self.runs:
            for folder, size in run.folders.items():
                folders[folder] = max(size, folders.get(folder, 0))
        return sum(folders.values())

    def describe(self) -> str:
        """A few lines for people."""
        hosts, targets = sum(r.hosts["to_train"] for r in self.runs), sum(r.targets_to_train for r in self.runs)
        memory = max((run.memory_bytes for run in self.runs), default=0)
        count = f"{_many(len(self.runs), 'run')}, {_many(len(self.zoos), 'zoo')}"
        return "\n".join(
            [
                f"sweep   {self.sweep_dir}: {count}, {_many(self.translators, 'translator')} to train",
                *(f"zoo     {zoo}" for zoo in self.zoos),
                f"hosts   {hosts:,} still to train",
                f"targets {targets:,} still to train",
                *(f"run     {Path(run.run_dir).name}: {_translator(run.translator)}" for run in self.runs),
                *_totals(self.seconds, self.disk_bytes, memory),
            ]
        )


def plan(run: Run) -> Plan:
    """Look at what is cached, time a few steps of each kind, and add up. Keeps nothing but the unpacked data."""
    run.check()
    return Planner().plan(run)


def plan_sweep(sweep: Sweep) -> SweepPlan:
    """The same for each run of a sweep; what several of them share is timed and counted once."""
    sweep.check()
    planner, plans = Planner(), []
    for member, run in zip(sweep.members, sweep.runs, strict=True):
        try:
            plans.append(planner.plan(run))
        except DataError as error:
            if member.values.get("case") not in sweep.options.optional:
                raise
            logger.warning("%s is left out: %s", member.name, error)
    return SweepPlan(str(sweep.folder), plans)


class Planner:
    """Remembers which shards and lessons earlier plans count, and how long what they timed took."""

    def __init__(self) -> None:
        self.counted: set[tuple[Path, Shard]] = set()
        self.looked_at: set[tuple[Any, ...]] = set()
        """Folders of shards, with the numbers of hosts that were looked for there."""
        self.lessons: set[str] = set()
        self.trials: dict[Path, Trial] = {}
        """By the folder of targets."""
        self.each: dict[Any, float] = {}
        """Seconds of one host, or target, by the folder of its shards; of one host in a step, by what is trained."""

    def plan(self, run: Run) -> Plan:
        run.zoos.prepare(run.cache)
        zoos = run.zoos.all
        missing = {(zoo, step): self._missing(zoo, step) for zoo in zoos for step in (1, 2)}
        seconds = {
            f"zoo_step{step}": sum(missing[zoo, step] and missing[zoo, step] * self._zoo(zoo, step) for zoo in zoos)
            for step in (1, 2)
        }
        translator, again = self._costs(run), self._again(run)
        if translator is not None:
            translator["again"] = again
        per_host, held = (0.0, 0) if again else self._step(run, translator)
        training, hosts = run.config.training, run.zoos.counts()
        learned_from = hosts["train"] + hosts.get("snapshots", 0)
        seconds["training"] = per_host * training.epochs * learned_from if training else 0.0
        batch = min(training.batch_size, learned_from) // training.accumulate if training else 0
        folders = dict[str, int]()
        for zoo in zoos:
            folders |= _folders(zoo)
        to_train = {step: sum(missing[zoo, step] for zoo in zoos) for step in (1, 2)}
        return Plan(
            run_dir=str(run.folder.path),
            zoo_dir=str(run.zoo.dir),
            hosts={**hosts, "to_train": to_train[1]},
            targets_to_train=to_train[2],
            seconds={name: round(value, 1) for name, value in seconds.items()},
            folders=folders,
            memory_bytes=_peak_memory(run.parts.device) + held * batch + sum(folders.values()),
            translator=translator,
        )

    def _missing(self, zoo: Zoo, step: int) -> int:
        """Hosts or targets that are not there, and that no earlier plan counts."""
        folder, _ = zoo.folder(step)
        counts = (folder, *((role, zoo.count(role)) for role in (*ROLES, *zoo.snapshots)))
        if counts in self.looked_at:
            return 0
        self.looked_at.add(counts)
        missing = 0
        for shard, snapshots in zoo.absent(step).items():
            made = {(folder, each) for each in (shard, *snapshots)}
            missing += 0 if made <= self.counted else shard.stop - shard.start
            self.counted |= made
        return missing

    def _zoo(self, zoo: Zoo, step: int) -> float:
        """Seconds of one host or target."""
        folder, _ = zoo.folder(step)
        if folder not in self.each:
            trial = self._trial(zoo)
            self.each[folder] = (trial.step1() if step == 1 else trial.step2()) / trial.count
        return self.each[folder]

    def _trial(self, zoo: Zoo) -> Trial:
        if zoo.target_dir not in self.trials:
            count = min(zoo.config.zoo.shard, max(zoo.count(role) for role in ROLES))
            alike = [trial for folder, trial in self.trials.items() if zoo.dir in folder.parents]
            self.trials[zoo.target_dir] = Trial(zoo.parts, count, alike[0].hosts if alike else None)
        return self.trials[zoo.target_dir]

    def _costs(self, run: Run) -> dict[str, Any] | None:
        """Name, parameters, and FLOPs for one block, of the run's own translator."""
        if run.config.translator is None:
            return None
        host = stacked.initial(lambda: stacked.network(run.parts.task, run.parts.source), [0])
        former, source, latter = (split(host, part) for part in ("former", "block", "latter"))
        hosts = Hosts(former, source, latter, stream=run.parts.task.stream()).to(run.parts.device)
        translator = run.parts.translator(seed=0)
        if isinstance(translator, LearnedTranslator):
            translator.to(run.parts.device)
        costs = translator_costs(translator, hosts.source, Context(hosts, run.parts.runner))
        return {"name": run.config.translator.name, **costs}

    def _again(self, run: Run) -> bool:
        """Whether an earlier run learns the same."""
        lesson = run.lesson()
        again = lesson in self.lessons
        self.lessons |= {lesson} if lesson else set()
        return again

    def _step(self, run: Run, costs: dict[str, Any] | None) -> tuple[float, int]:
        """Seconds, and bytes held, of one host in a step of the translator; zeros for one that does not learn."""
        training = run.config.training
        translator = run.parts.translator(seed=0) if costs else None
        if costs is None or training is None or not isinstance(translator, LearnedTranslator):
            return 0.0, 0
        key = (costs["name"], costs["parameters"], costs["flops"], str(run.config.objectives), run.zoo.target_dir)
        if key not in self.each:
            trial = self._trial(run.zoo)
            most = int(TIMED_FLOPS // max(1, costs["flops"]))
            count = max(1, min(training.batch_size, run.config.zoo.train, TIMED_HOSTS, most))
            trainer = Trainer(run.parts, translator, trial.stack, trial.stack, Path())
            chosen, generator = [i % trial.count for i in range(count)], torch.Generator().manual_seed(0)
            with held_by(translator) as held:
                trainer.step(chosen, generator)
            started = time.monotonic()
            trainer.step(chosen, generator)
            self.each[key] = (time.monotonic() - started) / count
            self.each[key, "held"] = sum(held.values()) / count
        return self.each[key], int(self.each[key, "held"])


def _folders(zoo: Zoo) -> dict[str, int]:
    """Bytes of the hosts with their snapshots, and of the targets, that are used of a zoo."""
    hosts = sum(zoo.count(role) for role in (*ROLES, *zoo.snapshots))
    targets = sum(shard.stop - shard.start for role in ROLES for shard in zoo.target_shards(role))
    values = sum(spec.numel for spec in stacked.network_specs(zoo.parts.task, zoo.parts.source))
    sizes = {str(zoo.dir): hosts * values, str(zoo.target_dir): targets * zoo.parts.target.spec.numel}
    return {folder: BYTES * size for folder, size in sizes.items() if size}


def _translator(found: dict[str, Any] | None) -> str:
    if found is None:
        return "nothing; the methods need no training"
    if not found["parameters"]:
        return f"nothing ({found['name']})"
    again = "; as in a run before, so not trained again" if found["again"] else ""
    return f"{found['name']}, {found['parameters']:,} parameters, {found['flops']:,} FLOPs for one translation{again}"


def _totals(seconds: dict[str, float], disk: int, memory: int) -> list[str]:
    stages = ", ".join(f"{name} {duration(value)}" for name, value in seconds.items())
    return [
        f"time    about {duration(sum(seconds.values()))} ({stages}), without evaluation",
        f"disk    {disk / 2**20:,.1f} MiB for the zoo",
        f"memory  about {memory / 2**30:.1f} GiB",
    ]


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _peak_memory(device: torch.device) -> int:
    """Bytes this process, or the GPU, has held at most; 0 where the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
