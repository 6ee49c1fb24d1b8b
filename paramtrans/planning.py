"""What a run will do and cost, told before anything is started."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from paramtrans import steps
from paramtrans.config import HostTraining
from paramtrans.engine import Run
from paramtrans.hosts import Hosts, Params, split
from paramtrans.learned import LearnedTranslator
from paramtrans.progress import duration
from paramtrans.training import Trainer
from paramtrans.zoo import ROLES

BYTES = 4
"""Of a float32."""
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

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def plan(run: Run) -> Plan:
    """Look at what is cached, time a few steps of each kind, and add up. Keeps nothing but the unpacked data."""
    parts, zoo = run.parts, run.zoo
    parts.check(run.where)
    parts.task.prepare(run.cache)
    counts = {role: zoo.count(role) for role in ROLES}
    missing = {step: sum(job["stop"] - job["start"] for job in zoo.missing(step)) for step in (1, 2)}
    probe = Probe(run, min(run.config.zoo.shard, max(counts.values())))
    targets = sum(shard.stop - shard.start for role in ROLES for shard in zoo.target_shards(role))
    disk = BYTES * (sum(counts.values()) * probe.host_values() + targets * parts.target.spec.numel)
    seconds = {
        "zoo_step1": probe.step1() * missing[1] / probe.count,
        "zoo_step2": probe.step2() * missing[2] / probe.count,
        "training": probe.training(),
    }
    return Plan(
        run_dir=str(run.folder.path),
        zoo_dir=str(zoo.dir),
        hosts={**counts, "to_train": missing[1]},
        targets_to_train=missing[2],
        seconds={name: round(value, 1) for name, value in seconds.items()},
        disk_bytes=disk,
        memory_bytes=_peak_memory(parts.device) + disk,
    )


def describe(plan: Plan) -> str:
    """A plan as a few lines for people."""
    hosts = ", ".join(f"{plan.hosts[role]} {role}" for role in ("train", "select", "report"))
    stages = ", ".join(f"{name} {duration(value)}" for name, value in plan.seconds.items())
    return "\n".join(
        [
            f"run     {plan.run_dir}",
            f"zoo     {plan.zoo_dir}",
            f"hosts   {hosts}; {plan.hosts['to_train']} still to train",
            f"targets {plan.targets_to_train} still to train",
            f"time    about {duration(sum(plan.seconds.values()))} ({stages}), without evaluation",
            f"disk    {plan.disk_bytes / 2**20:.1f} MiB for the zoo",
            f"memory  about {plan.memory_bytes / 2**30:.1f} GiB",
        ]
    )


class Probe:
    """A few real steps of each kind on one shard, for their time and memory."""

    def __init__(self, run: Run, count: int) -> None:
        self.parts, self.config, self.count = run.parts, run.config, count
        self.examples = len(run.parts.task.split("train"))
        self.seeds = list(range(count))
        self.hosts = self._hosts(_short(run.config.zoo.step1, 1))

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
        translator = self.parts.translator(seed=0)
        if not isinstance(translator, LearnedTranslator):
            return 0.0
        parts = {part: split(self.hosts, part) for part in ("former", "source", "latter")}
        parts["target"] = split(self._targets(_short(self.config.zoo.step2, 1)), "target")
        stream = self.parts.task.stream()
        hosts = Hosts(parts["former"], parts["source"], parts["latter"], parts["target"], tuple(self.seeds), stream)
        training = self.config.training
        trainer = Trainer(self.parts, translator, hosts, hosts, Path())
        chosen = [i % self.count for i in range(min(training.batch_size, self.config.zoo.train))]
        generator = torch.Generator().manual_seed(0)
        trainer.step(chosen, generator)
        started = time.monotonic()
        for _ in range(PROBE_STEPS):
            trainer.step(chosen, generator)
        per_step = (time.monotonic() - started) / PROBE_STEPS
        return per_step * training.epochs * -(-self.config.zoo.train // training.batch_size)

    def _hosts(self, options: HostTraining) -> Params:
        return steps.train_hosts(self.parts.task, self.parts.source, options, self.seeds, self.parts.device)

    def _targets(self, options: HostTraining) -> Params:
        task, target = self.parts.task, self.parts.target
        return steps.train_targets(task, target, self.hosts, options, self.seeds, self.parts.device)


def _per_step(train: Callable[[HostTraining], Params], options: HostTraining) -> float:
    """Seconds of one step of a shard: a longer run less a shorter one, so that set-up does not count."""
    seconds = []
    for count in (1, 1 + PROBE_STEPS):
        started = time.monotonic()
        train(_short(options, count))
        seconds.append(time.monotonic() - started)
    return max(0.0, seconds[1] - seconds[0]) / PROBE_STEPS


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
