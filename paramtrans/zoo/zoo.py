"""Zoos: many hosts trained at once (step 1), and a target block trained in each of them (step 2), kept in shards."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch

from paramtrans.api import stacking as params_
from paramtrans.api.hosts import Hosts, in_hosts
from paramtrans.api.job import Job
from paramtrans.api.stacking import Params
from paramtrans.backends import host_runner
from paramtrans.builder import Builder
from paramtrans.errors import Damaged, StoreError, TrainingError
from paramtrans.storage import json_files, sealed_params
from paramtrans.storage.shards import Shards
from paramtrans.utils.counts import counted
from paramtrans.zoo import fingerprint
from paramtrans.zoo.host_file import HostFile
from paramtrans.zoo.jobs import do_job as do_job
from paramtrans.zoo.recipe import (
    Shard,
    digest,
    host_recipe,
    hosts_digest,
    identity,
    shards,
    target_recipe,
    tensors,
)
from paramtrans.zoo.reuse import CachedShard
from paramtrans.zoo.roles import snapshot, trained_as

ROLES = ("train", "select", "report")

logger = logging.getLogger(__name__)


class Zoo:
    """The hosts of one config, on disk. Zoos whose recipe is the same share a folder, whatever their sizes."""

    def __init__(
        self, builder: Builder, cache: Path, roles: tuple[str, ...] = ROLES, begin: tuple[str, Zoo] | None = None
    ) -> None:
        """`roles` are those it has hosts of. Step 1 may `begin` with hosts of another zoo, in one of the ways of
        `config.ReportConfig.begin`."""
        self.config = config = builder.config
        self.roles, self.begin = roles, begin
        self.stream, self.cache = builder.task.stream(), cache.absolute()
        self.recipe = host_recipe(config, builder.source.reading_options) | tensors(
            host_runner.network_specs(builder.task, builder.source)
        )
        if begin:
            self.recipe |= {"begin": begin[0], "hosts": begin[1].recipe}
        self.dir = cache / "zoos" / digest(self.recipe)
        self.target_recipe = target_recipe(config) | tensors(builder.target.spec.tensors)
        self.diverged: dict[str, list[int]] = {}
        """Seeds of the hosts that were left out, by role."""
        self.target_dir = self.dir / "targets" / digest(self.target_recipe)
        self.builder = builder
        self._warned: set[str] = set()

    @cached_property
    def given(self) -> HostFile | None:
        """The report hosts, where they are not trained but given; raises `StoreError` where they do not fit."""
        if self.config.zoo.report_from is None:
            return None
        given = HostFile(Path(self.config.zoo.report_from))
        specs = host_runner.network_specs(self.builder.task, self.builder.source)
        given.check([replace(spec, name=in_hosts(spec.name)) for spec in specs], self.count("report"))
        return given

    @cached_property
    def given_targets(self) -> bool:
        """Whether the given report hosts have trained targets of the config's kind, so that step 2 has been done."""
        return self.given is not None and self.given.has_targets(self.builder.target.spec.tensors)

    def folder(self, step: int) -> tuple[Path, dict[str, Any]]:
        """Where the shards of a step stand, and the recipe that made them."""
        return (self.dir, self.recipe) if step == 1 else (self.target_dir, self.target_recipe)

    def write_recipe(self, step: int) -> None:
        """Say in words, beside the shards, what made them; a file that says something else, or is gone, is reported."""
        folder, recipe = self.folder(step)
        path = folder / "recipe.json"
        try:
            if path.exists():
                same = json_files.digest(json_files.read_json(path)) == json_files.digest(recipe)
            else:
                same = not any(folder.rglob("*.safetensors"))
        except Damaged:
            same = False
        if not same:
            logger.warning("%s: was changed or removed after it was written; it is written again", path)
        json_files.write_json(path, recipe)

    def seconds(self) -> float:
        """What the hosts and pairs that the translator learns from took to train, whenever that was."""
        roles = ("train", "select", *self.snapshots)
        paths = [self._path(1, shard) for role in roles for shard in self.host_shards(role)]
        paths += [self._path(2, shard) for shard in self.target_shards("train")]
        return float(sum(sealed_params.load_record(path)["seconds"] for path in paths))

    def seconds_per_target(self) -> float | None:
        """What step 2 took for one report host; None where it was not run here."""
        if self.given_targets:
            return None
        records = [sealed_params.load_record(self._path(2, shard)) for shard in self.target_shards("report")]
        hosts = sum(len(record["seeds"]) for record in records)
        return sum(record["seconds"] for record in records) / hosts if hosts else None

    @property
    def snapshots(self) -> list[str]:
        """Roles of its training hosts as they were on the way, which are further hosts to learn from."""
        return [snapshot(share) for share in self.config.zoo.snapshots]

    def count(self, role: str) -> int:
        base, _ = trained_as(role)
        return int(getattr(self.config.zoo, base)) if base in self.roles else 0

    def used(self, role: str) -> int:
        """Hosts of a role less those that were left out."""
        return self.count(role) - len(self.diverged.get(role, []))

    def host_shards(self, role: str) -> list[Shard]:
        return shards(role, self.count(role), self.config.zoo.shard)

    def target_shards(self, role: str) -> list[Shard]:
        """Shards of step 2: the pairs among the training hosts, and the report hosts for their upper bound."""
        count = {
            "train": min(self.config.zoo.target_hosts, self.count("train")),
            "select": 0,
            "report": self.count("report") if self.config.evaluation.trained_target else 0,
        }.get(role, 0)
        return shards(role, count, self.config.zoo.shard)

    def _shards(self, step: int, role: str) -> list[Shard]:
        return self.host_shards(role) if step == 1 else self.target_shards(role)

    def missing(self, step: int, outdated: int = 0) -> list[Job]:
        """Jobs for the shards of a step that are absent, or damaged (which is logged).

        Args:
            step: 1 for whole hosts, 2 for target blocks.
            outdated: Shards that were there when `newest` returned this count as absent too; 0 for none.

        Raises:
            StoreError: shards of a zoo that was made elsewhere are absent; they cannot be trained here.
        """
        absent = self.absent(step, 0 if step == 1 and self.config.zoo.origin else outdated)
        if absent and step == 1 and self.config.zoo.origin:
            raise StoreError(
                f"zoo.origin: {self.config.zoo.origin} lacks {counted(len(absent), 'shard')} in the cache, and hosts "
                "from elsewhere cannot be trained here; run paramtrans zoo import FOLDER CONFIG"
            )
        return [self._job(step, shard, snapshots) for shard, snapshots in absent.items()]

    def absent(self, step: int, outdated: int = 0) -> dict[Shard, list[Shard]]:
        """The shards that `missing` has jobs for, each with absent snapshots of its hosts, which the job writes too.

        Where snapshots alone are absent, the first of them stands for the hosts.
        """
        absent = {}
        for shard in [shard for role in ROLES for shard in self._shards(step, role)]:
            on_the_way = self.snapshots if (step, shard.role) == (1, "train") else []
            wanted = [shard, *(replace(shard, role=role) for role in on_the_way)]
            lacking = [part for part in wanted if not self._cached(step, part).is_reusable(outdated, self._warned)]
            if lacking:
                absent[lacking[0]] = lacking[1:]
        return absent

    def load(self, role: str) -> Hosts:
        """The hosts of a role; with their trained targets where all of them have one. Diverged hosts are left out."""
        return self._stack(role, self.count(role))

    def pairs(self) -> Hosts | None:
        """The training hosts that have a trained target; None without any."""
        count = min(self.config.zoo.target_hosts, self.count("train"))
        return self._stack("train", count) if count else None

    def reader(self, step: int, role: str, prefixes: tuple[str, ...] = ("",)) -> Shards:
        """The models of a role as they are on disk, diverged ones too, for more than fit in memory.

        `zoo.reader(1, "train", ("source.",)).take([5, 2])` are the source blocks of two training hosts.

        Args:
            step: 1 for hosts, 2 for targets.
            role: `train`, `select` or `report`.
            prefixes: What the names of the tensors that are read begin with.
        """
        return Shards([self._path(step, shard) for shard in self._shards(step, role)], prefixes)

    def newest(self) -> int:
        """When the last of this config's shards was written, as files tell time; 0 where there is none."""
        steps_, roles = ((1, self.host_shards), (2, self.target_shards)), (*ROLES, *self.snapshots)
        paths = [self._path(step, shard) for step, of_step in steps_ for role in roles for shard in of_step(role)]
        return max((sealed_params.written(path, at_most=time.time_ns()) for path in paths), default=0)

    def put(self, step: int, shard: Shard, params: Params, made_by: dict[str, str]) -> None:
        """Write a shard that was made elsewhere, as `do_job` writes those made here.

        Args:
            step: 1 for hosts, 2 for targets.
            shard: Which it is.
            params: Its models, each `[hosts, *shape]`.
            made_by: What made it, for its record.

        Raises:
            StoreError: it cannot be written.
        """
        record = identity(step, shard, self.config.zoo.seed)
        if step == 2:
            hosts, _ = sealed_params.load_params(self._hosts_file(shard))
            record["hosts_sha256"] = hosts_digest(hosts, shard.stop - shard.start)
        sealed_params.save_params(self._path(step, shard), params, {**record, "seconds": 0.0, "made_by": made_by})

    def _stack(self, role: str, count: int) -> Hosts:
        """The first `count` hosts of a role."""
        used = [shard for shard in self.host_shards(role) if shard.start < count]
        whole = self._first(1, used, count)
        targets = [shard for shard in self.target_shards(role) if shard.start < count]
        target = None
        if targets and targets[-1].stop >= count:
            target = params_.split(self._first(2, targets, count), "target")
        numbers = tuple(seed for shard in used for seed in shard.seeds(self.config.zoo.seed))[:count]
        return self._finite(Hosts.from_network(whole, target, numbers, self.stream), role)

    def _first(self, step: int, used: list[Shard], count: int) -> Params:
        """The first `count` models of some shards; each shard is held only while it is copied."""
        whole: Params = {}
        for shard in used:
            params = self._cached(step, shard).load(self._warned)
            whole = whole or {name: tensor.new_empty(count, *tensor.shape[1:]) for name, tensor in params.items()}
            for name, tensor in params.items():
                rows = whole[name][shard.start : shard.stop]
                rows.copy_(tensor[: len(rows)])
        return whole

    def _finite(self, hosts: Hosts, role: str) -> Hosts:
        tensors = [t for params in hosts.parts().values() for t in params.values()]
        bad = ~torch.stack([t.reshape(len(t), -1).isfinite().all(1) for t in tensors]).all(0)
        if bad.any():
            lost = [seed for seed, is_bad in zip(hosts.seeds, bad.tolist(), strict=True) if is_bad]
            self.diverged[role] = sorted({*self.diverged.get(role, []), *lost})
            logger.warning("diverged and left out: %s; seeds %s", counted(len(lost), f"{role} host"), lost)
            hosts = hosts.pick((~bad).nonzero().flatten())
        if len(hosts) < (2 if role == "report" else 1):
            count = "fewer than two" if role == "report" else "no"
            raise TrainingError(f"zoo: {count} {role} hosts have finite parameters; lower zoo.step1.lr or zoo.step2.lr")
        return hosts

    def _path(self, step: int, shard: Shard) -> Path:
        folder = self.dir / "hosts" if step == 1 else self.target_dir
        if shard.role == "report" and self.given is not None:
            folder = folder / self.given.digest[:16]
        return folder / shard.file

    def _cached(self, step: int, shard: Shard) -> CachedShard:
        """A shard's file, and what it must say so that it is used again."""
        hosts = self._hosts_file(shard) if step == 2 else None
        if step == 1 and self.begin:
            hosts = self.begin[1]._hosts_file(shard)
        record = partial(identity, step, shard, self.config.zoo.seed)
        return CachedShard(step, self._path(step, shard), record, lambda: fingerprint.of(self.builder, step), hosts)

    def _job(self, step: int, shard: Shard, snapshots: list[Shard]) -> Job:
        begin = (self.begin[0], self.begin[1]._hosts_file(shard).absolute()) if self.begin else None
        return Job.model_validate(
            {
                "step": step,
                "role": shard.role,
                "start": shard.start,
                "stop": shard.stop,
                "hosts": self._hosts_file(shard).absolute(),
                "file": self._path(step, shard).absolute(),
                "snapshots": {kept.role: self._path(step, kept).absolute() for kept in snapshots},
                "cache": self.cache,
                "plugins": self.builder.registry.source,
                "given": shard.role == "report" and (self.given is not None if step == 1 else self.given_targets),
                "config": self.config.model_dump(mode="json"),
                "begin": begin,
            }
        )

    def _hosts_file(self, shard: Shard) -> Path:
        """The step-1 file that holds a shard's hosts; a step-2 shard may end before it."""
        stop = min(shard.start + self.config.zoo.shard, self.count(shard.role))
        return self._path(1, replace(shard, stop=stop))
