"""What a run will do and cost, told before anything is started."""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path
from typing import Any

import torch

from paramtrans.api.context import Context
from paramtrans.backends import host_runner
from paramtrans.errors import DataError
from paramtrans.evaluation.costs import translator_costs
from paramtrans.runs.plan import Plan, SweepPlan
from paramtrans.runs.run import Run
from paramtrans.runs.sweep import Sweep
from paramtrans.training.trainer import Trainer
from paramtrans.translators.base import LearnedTranslator
from paramtrans.zoo.recipe import Shard
from paramtrans.zoo.timing import Trial, held_by
from paramtrans.zoo.zoo import ROLES, Zoo

logger = logging.getLogger(__name__)

BYTES = 4
"""Of a float32."""
TIMED_HOSTS, TIMED_FLOPS = 64, 5e8
"""Hosts in a timed step of the translator: so many at most, and no more than come to so many operations, but one.
Larger batches are taken to cost as much a host."""


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
    """Remembers which shards and translators earlier plans count, and how long what they timed took."""

    def __init__(self) -> None:
        self.counted: set[tuple[Path, Shard]] = set()
        self.looked_at: set[tuple[Any, ...]] = set()
        """Folders of shards, with the numbers of hosts that were looked for there."""
        self.training_keys: set[str] = set()
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
            memory_bytes=_peak_memory(run.builder.device) + held * batch + sum(folders.values()),
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
        given = bool(zoo.given) if step == 1 else zoo.given_targets
        for shard, snapshots in zoo.absent(step).items():
            if given and shard.role == "report":
                continue  # copied from a file
            written = {(folder, kept) for kept in (shard, *snapshots)}
            missing += 0 if written <= self.counted else shard.stop - shard.start
            self.counted |= written
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
            self.trials[zoo.target_dir] = Trial(zoo.builder, count, alike[0].hosts if alike else None)
        return self.trials[zoo.target_dir]

    def _costs(self, run: Run) -> dict[str, Any] | None:
        """Name, parameters, and FLOPs for one block, of the run's own translator."""
        if run.config.translator is None:
            return None
        hosts = host_runner.untrained(run.builder.task, run.builder.source, [0]).to(run.builder.device)
        translator = run.builder.translator(seed=0)
        if isinstance(translator, LearnedTranslator):
            translator.to(run.builder.device)
        costs = translator_costs(translator, hosts.source, Context(hosts, run.builder.runner))
        return {"name": run.config.translator.name, **costs._asdict()}

    def _again(self, run: Run) -> bool:
        """Whether an earlier run learns the same."""
        training_key = run.training_key()
        again = training_key in self.training_keys
        self.training_keys |= {training_key} if training_key else set()
        return again

    def _step(self, run: Run, costs: dict[str, Any] | None) -> tuple[float, int]:
        """Seconds, and bytes held, of one host in a step of the translator; zeros for one that does not learn."""
        training = run.config.training
        translator = run.builder.translator(seed=0) if costs else None
        if costs is None or training is None or not isinstance(translator, LearnedTranslator):
            return 0.0, 0
        key = (costs["name"], costs["parameters"], costs["flops"], str(run.config.objectives), run.zoo.target_dir)
        if key not in self.each:
            trial = self._trial(run.zoo)
            most = 1 if costs["flops"] is None else int(TIMED_FLOPS // max(1, costs["flops"]))
            count = max(1, min(training.batch_size, run.config.zoo.train, TIMED_HOSTS, most))
            trainer = Trainer(run.builder, translator, trial.stack, trial.stack, Path())
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
    values = sum(spec.numel for spec in host_runner.network_specs(zoo.builder.task, zoo.builder.source))
    sizes = {str(zoo.dir): hosts * values, str(zoo.target_dir): targets * zoo.builder.target.spec.numel}
    return {folder: BYTES * size for folder, size in sizes.items() if size}


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
