"""What a run will do and cost, told before anything is started."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from paramtrans import steps
from paramtrans.config import HostTraining
from paramtrans.engine import Run
from paramtrans.evaluation import translator_costs
from paramtrans.hosts import Hosts, Params, split
from paramtrans.learned import LearnedTranslator
from paramtrans.progress import duration
from paramtrans.protocols import Context
from paramtrans.sweep import Sweep
from paramtrans.training import Trainer
from paramtrans.zoo import ROLES, Zoo

STAGES = {"zoo_step1": "step 1", "zoo_step2": "step 2", "training": "step 3"}
BYTES = 4
"""Of a float32."""
PROBE_BATCH = 64
"""Hosts in a timed step of the translator, at most; larger batches are taken to cost as much a host."""
PROBE_STEPS = 3
"""Training steps that are timed, on a shard of the config's size, for the estimate."""


@dataclass(frozen=True)
class Plan:
    """Estimates, for this machine as busy as it is now: hosts and targets still to train, and the whole of step 3."""

    run_dir: str
    zoo_dir: str
    hosts: dict[str, int]
    """Hosts of each role, and `to_train`: those not in the cache yet."""
    targets_to_train: int
    seconds: dict[str, float]
    disk_bytes: int
    memory_bytes: int

    translator: dict[str, Any] | None
    """Its name, parameters, and the FLOPs of one translation; parameters 0 for one that learns nothing."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def describe(self) -> str:
        """A few lines for people."""
        hosts = ", ".join(f"{self.hosts[role]} {role}" for role in ROLES)
        return "\n".join(
            [
                f"run     {self.run_dir}",
                f"zoo     {self.zoo_dir}",
                f"hosts   {hosts}; {self.hosts['to_train']} still to train",
                f"targets {self.targets_to_train} still to train",
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
        return {**asdict(self), "seconds": self.seconds, "zoos": len({run.zoo_dir for run in self.runs})}

    @property
    def seconds(self) -> dict[str, float]:
        """Of all runs, by stage."""
        return {name: round(sum(run.seconds[name] for run in self.runs), 1) for name in self.runs[0].seconds}

    def describe(self) -> str:
        """A few lines for people."""
        zoos = {run.zoo_dir: run for run in self.runs}
        hosts, targets = (
            sum(run.hosts["to_train"] for run in self.runs),
            sum(run.targets_to_train for run in self.runs),
        )
        disk = sum(max(run.disk_bytes for run in self.runs if run.zoo_dir == zoo) for zoo in zoos)
        return "\n".join(
            [
                f"sweep   {self.sweep_dir}: {len(self.runs)} runs, {_many(len(zoos), 'zoo')}",
                *(f"zoo     {zoo}" for zoo in zoos),
                f"hosts   {hosts:,} still to train",
                f"targets {targets:,} still to train",
                *(f"run     {Path(run.run_dir).name}: {_translator(run.translator)}" for run in self.runs),
                *_totals(self.seconds, disk, max(run.memory_bytes for run in self.runs)),
            ]
        )


def plan(run: Run) -> Plan:
    """Look at what is cached, time a few steps of each kind, and add up. Keeps nothing but the unpacked data."""
    return Planner().plan(run)


def plan_sweep(sweep: Sweep) -> SweepPlan:
    """The same for each run of a sweep; zoos that several of them share are timed once."""
    sweep.check()
    planner = Planner()
    return SweepPlan(str(sweep.folder), [planner.plan(run) for run in sweep.runs])


class Planner:
    """Remembers which shards earlier plans count, and how long a host or target of each zoo takes."""

    def __init__(self) -> None:
        self.counted: set[str] = set()
        self.each: dict[Path, float] = {}
        """Seconds of one host, or target, by the folder of its shards."""

    def plan(self, run: Run) -> Plan:
        parts, zoo = run.parts, run.zoo
        run.check()
        parts.task.prepare(run.cache)
        counts = {role: zoo.count(role) for role in ROLES}
        probe = Probe(run, min(run.config.zoo.shard, max(counts.values())))
        missing = {step: self._missing(zoo, step) for step in (1, 2)}
        targets = sum(shard.stop - shard.start for role in ROLES for shard in zoo.target_shards(role))
        disk = BYTES * (sum(counts.values()) * probe.host_values() + targets * parts.target.spec.numel)
        seconds = {
            "zoo_step1": missing[1] and missing[1] * self._each(zoo.dir, probe.step1, probe.count),
            "zoo_step2": missing[2] and missing[2] * self._each(zoo.target_dir, probe.step2, probe.count),
            "training": probe.training(),
        }
        return Plan(
            run_dir=str(run.folder.path),
            zoo_dir=str(zoo.dir),
            hosts={**counts, "to_train": missing[1]},
            targets_to_train=missing[2],
            seconds={name: round(value, 1) for name, value in seconds.items()},
            disk_bytes=disk,
            memory_bytes=_peak_memory(parts.device) + probe.step_bytes + disk,
            translator=probe.translator(),
        )

    def _missing(self, zoo: Zoo, step: int) -> int:
        jobs = [job for job in zoo.missing(step) if job["file"] not in self.counted]
        self.counted |= {job["file"] for job in jobs}
        return sum(job["stop"] - job["start"] for job in jobs)

    def _each(self, folder: Path, measure: Callable[[], float], count: int) -> float:
        if folder not in self.each:
            self.each[folder] = measure() / count
        return self.each[folder]


def _translator(found: dict[str, Any] | None) -> str:
    if found is None:
        return "nothing; the methods need no training"
    if not found["parameters"]:
        return f"nothing ({found['name']})"
    return f"{found['name']}, {found['parameters']:,} parameters, {found['flops']:,} FLOPs for one translation"


def _totals(seconds: dict[str, float], disk: int, memory: int) -> list[str]:
    stages = ", ".join(f"{STAGES[name]} {duration(value)}" for name, value in seconds.items())
    return [
        f"time    about {duration(sum(seconds.values()))} ({stages}), without evaluation",
        f"disk    {disk / 2**20:.1f} MiB for the zoo",
        f"memory  about {memory / 2**30:.1f} GiB",
    ]


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


class Probe:
    """A few real steps of each kind on one shard, for their time and memory."""

    def __init__(self, run: Run, count: int) -> None:
        self.parts, self.config, self.count = run.parts, run.config, count
        self.examples = len(run.parts.task.split("train"))
        self.seeds = list(range(count))
        self.hosts = self._hosts(_short(run.config.zoo.step1, 1))
        self.step_bytes = 0
        """What a step of the translator at the config's batch size holds beyond the timed one."""

    def host_values(self) -> int:
        """Numbers kept of one host."""
        return sum(tensor[0].numel() for tensor in self.hosts.values())

    def step1(self) -> float:
        """Seconds of step 1 for the shard."""
        options = self.config.zoo.step1
        return _per_step(self._hosts, options) * options.length(self.examples)

    def step2(self) -> float:
        """Seconds of step 2 for the shard."""
        options = self.config.zoo.step2
        return _per_step(self._targets, options) * options.length(self.examples)

    def training(self) -> float:
        """Seconds of step 3."""
        training = self.config.training
        translator = self.parts.translator(seed=0) if self.config.translator else None
        if not isinstance(translator, LearnedTranslator) or training is None:
            return 0.0
        trainer = Trainer(self.parts, translator, self.stack, self.stack, Path())
        batch = min(training.batch_size, self.config.zoo.train)
        chosen = [i % self.count for i in range(min(batch, PROBE_BATCH))]
        generator, before = torch.Generator().manual_seed(0), _peak_memory(self.parts.device)
        trainer.step(chosen, generator)
        started = time.monotonic()
        for _ in range(PROBE_STEPS):
            trainer.step(chosen, generator)
        per_host = (time.monotonic() - started) / PROBE_STEPS / len(chosen)
        self.step_bytes = (_peak_memory(self.parts.device) - before) * (batch - len(chosen)) // len(chosen)
        return per_host * training.epochs * self.config.zoo.train

    def translator(self) -> dict[str, Any] | None:
        """Name, parameters, and FLOPs for one block, of the run's own translator."""
        if self.config.translator is None:
            return None
        host = self.stack.pick([0])
        costs = translator_costs(self.parts.translator(seed=0), host.source, Context(host, self.parts.runner))
        return {"name": self.config.translator.name, **costs}

    @cached_property
    def stack(self) -> Hosts:
        """Barely trained hosts with their targets."""
        parts = {part: split(self.hosts, part) for part in ("former", "source", "latter")}
        target = split(self._targets(_short(self.config.zoo.step2, 1)), "target")
        stream = self.parts.task.stream()
        return Hosts(parts["former"], parts["source"], parts["latter"], target, tuple(self.seeds), stream)

    def _hosts(self, options: HostTraining) -> Params:
        return steps.train_hosts(self.parts.task, self.parts.source, options, self.seeds, self.parts.device)

    def _targets(self, options: HostTraining) -> Params:
        task, target = self.parts.task, self.parts.target
        return steps.train_targets(task, target, self.hosts, options, self.seeds, self.parts.device)


def _per_step(train: Callable[[HostTraining], Params], options: HostTraining) -> float:
    """Seconds of one step of a shard: a longer run less a shorter one, so that set-up does not count.

    A run before both compiles what has to be.
    """
    seconds = []
    for count in (1, 1, 1 + PROBE_STEPS):
        started = time.monotonic()
        train(_short(options, count))
        seconds.append(time.monotonic() - started)
    return max(0.0, seconds[2] - seconds[1]) / PROBE_STEPS


def _short(options: HostTraining, count: int) -> HostTraining:
    return options.model_copy(update={"steps": count, "epochs": None})


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
