"""Zoos: many hosts trained at once (step 1), and a target block trained in each of them (step 2), kept in shards."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from paramtrans import hosts as params_
from paramtrans import seeds, steps, store
from paramtrans.cache import cache_dir
from paramtrans.config import Config
from paramtrans.errors import TrainingError
from paramtrans.hosts import Hosts, Params
from paramtrans.parts import Parts
from paramtrans.plugins import registry

FORMAT = 1
"""Version of a zoo on disk: its shards, their records, and the meaning of its recipe."""
ROLES = ("train", "select", "report")

logger = logging.getLogger(__name__)
Report = Callable[[int], None]


@dataclass(frozen=True)
class Shard:
    """Hosts `start` to `stop` of one role; one file for step 1 and one for step 2."""

    role: str
    start: int
    stop: int

    @property
    def file(self) -> str:
        return f"{self.role}-{self.start:07d}-{self.stop:07d}.safetensors"


def shards(role: str, count: int, size: int) -> list[Shard]:
    """`count` hosts of a role, cut into shards of `size`."""
    return [Shard(role, start, min(start + size, count)) for start in range(0, count, size)]


class Zoo:
    """The hosts of one config, on disk. Zoos whose recipe is the same share a folder, whatever their sizes."""

    def __init__(self, config: Config, cache: Path) -> None:
        self.config = config
        self.recipe = host_recipe(config)
        self.dir = cache / "zoos" / digest(self.recipe)
        self.target_recipe = target_recipe(config)
        self.target_dir = self.dir / "targets" / digest(self.target_recipe)

    def folder(self, step: int) -> tuple[Path, dict[str, Any]]:
        """Where the shards of a step stand, and the recipe that made them."""
        return (self.dir, self.recipe) if step == 1 else (self.target_dir, self.target_recipe)

    def seconds(self) -> float:
        """What the hosts and pairs that the translator learns from took to train, whenever that was."""
        paths = [self._path(1, shard) for role in ("train", "select") for shard in self.host_shards(role)]
        paths += [self._path(2, shard) for shard in self.target_shards("train")]
        return float(sum(store.load_record(path)["seconds"] for path in paths))

    def seconds_per_target(self) -> float | None:
        """What step 2 took for one report host; None where it was not run."""
        records = [store.load_record(self._path(2, shard)) for shard in self.target_shards("report")]
        hosts = sum(len(record["seeds"]) for record in records)
        return sum(record["seconds"] for record in records) / hosts if hosts else None

    def count(self, role: str) -> int:
        return int(getattr(self.config.zoo, role))

    def host_shards(self, role: str) -> list[Shard]:
        return shards(role, self.count(role), self.config.zoo.shard)

    def target_shards(self, role: str) -> list[Shard]:
        """Shards of step 2: the pairs among the training hosts, and the report hosts for their upper bound."""
        count = {
            "train": self.config.zoo.target_hosts,
            "select": 0,
            "report": self.count("report") if self.config.evaluation.trained_target else 0,
        }[role]
        return shards(role, count, self.config.zoo.shard)

    def missing(self, step: int) -> list[dict[str, Any]]:
        """Jobs for the shards of a step that are absent, or damaged (which is logged), as JSON documents."""
        of_step = self.host_shards if step == 1 else self.target_shards
        wanted = [shard for role in ROLES for shard in of_step(role)]
        return [self._job(step, shard) for shard in wanted if not self._is_whole(self._path(step, shard))]

    def load(self, role: str) -> Hosts:
        """The hosts of a role; with their trained targets where all of them have one. Diverged hosts are left out."""
        parts = [store.load_params(self._path(1, shard)) for shard in self.host_shards(role)]
        stacked = params_.concatenate([params for params, _ in parts])
        numbers = tuple(seed for _, record in parts for seed in record["seeds"])
        target = self._targets(role)
        if target is not None and params_.models(target) < len(numbers):
            target = None
        named = {part: params_.split(stacked, part) for part in ("former", "source", "latter")}
        return self._finite(Hosts(**named, target=target, seeds=numbers), role)

    def pairs(self) -> Hosts | None:
        """The training hosts that have a trained target; None without any."""
        target = self._targets("train")
        if target is None:
            return None
        count = params_.models(target)
        used = [shard for shard in self.host_shards("train") if shard.start < count]
        stacked = params_.concatenate([store.load_params(self._path(1, shard))[0] for shard in used])
        named = {part: params_.split(stacked, part) for part in ("former", "source", "latter")}
        first = {part: params_.take(params, range(count)) for part, params in named.items()}
        numbers = tuple(host_seed(self.config.zoo.seed, "train", i) for i in range(count))
        return self._finite(Hosts(**first, target=target, seeds=numbers), "train")

    def forget(self) -> None:
        """Delete the shards this config uses, so that they are trained afresh."""
        for step, of_step in ((1, self.host_shards), (2, self.target_shards)):
            for shard in (shard for role in ROLES for shard in of_step(role)):
                store.record_path(self._path(step, shard)).unlink(missing_ok=True)
                self._path(step, shard).unlink(missing_ok=True)

    def _targets(self, role: str) -> Params | None:
        paths = [self._path(2, shard) for shard in self.target_shards(role)]
        if not paths:
            return None
        return params_.split(params_.concatenate([store.load_params(path)[0] for path in paths]), "target")

    def _finite(self, hosts: Hosts, role: str) -> Hosts:
        bad = ~torch.stack([t.flatten(1).isfinite().all(1) for p in hosts.parts().values() for t in p.values()]).all(0)
        if bad.any():
            lost = [seed for seed, is_bad in zip(hosts.seeds, bad.tolist(), strict=True) if is_bad]
            logger.warning("%d %s host(s) diverged and are left out; seeds %s", len(lost), role, lost)
            hosts = hosts.pick((~bad).nonzero().flatten())
        if len(hosts) < 2:
            raise TrainingError(f"zoo: fewer than two {role} hosts have finite parameters; lower zoo.step1.lr")
        return hosts

    def _path(self, step: int, shard: Shard) -> Path:
        return (self.dir / "hosts" if step == 1 else self.target_dir) / shard.file

    def _is_whole(self, path: Path) -> bool:
        if not store.record_path(path).exists():
            return False
        try:
            store.load_params(path)
        except store.Damaged as error:
            logger.warning("%s; it is trained again", error)
            return False
        return True

    def _job(self, step: int, shard: Shard) -> dict[str, Any]:
        return {
            "step": step,
            "role": shard.role,
            "start": shard.start,
            "stop": shard.stop,
            "hosts": str(self._hosts_file(shard)),
            "file": str(self._path(step, shard)),
            "config": self.config.model_dump(mode="json"),
        }

    def _hosts_file(self, shard: Shard) -> Path:
        """The step-1 file that holds a shard's hosts; a step-2 shard may end before it."""
        holder = next(s for s in self.host_shards(shard.role) if s.start == shard.start)
        return self._path(1, holder)


def host_seed(zoo_seed: int, role: str, number: int) -> int:
    """The seed of one host: its initial parameters, the order of its images, and their augmentation."""
    return seeds.derive(zoo_seed, "host", role, number)


def host_recipe(config: Config) -> dict[str, Any]:
    """All that decides what a host of step 1 becomes; zoos with equal recipes are one zoo."""
    return {
        "format": FORMAT,
        "task": config.task.model_dump(mode="json"),
        "source": config.source.model_dump(mode="json"),
        "step1": config.zoo.step1.model_dump(mode="json"),
        "seed": config.zoo.seed,
        "shard": config.zoo.shard,
    }


def target_recipe(config: Config) -> dict[str, Any]:
    """All that decides what a trained target of step 2 becomes, given its host."""
    return {
        "format": FORMAT,
        "target": config.target.model_dump(mode="json"),
        "step2": config.zoo.step2.model_dump(mode="json"),
    }


@lru_cache(maxsize=1)
def _parts(config: str) -> Parts:
    """The components that a job's config names, with their data ready; kept from one shard to the next."""
    parts = Parts(Config.model_validate_json(config), registry())
    parts.task.prepare(cache_dir(parts.config.run.cache))
    return parts


def digest(recipe: dict[str, Any]) -> str:
    """A recipe's name on disk."""
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:16]


def do_job(job: dict[str, Any], report: Report) -> None:
    """Train one shard and write it. `report` is called with the number of steps done since its last call."""
    parts = _parts(json.dumps(job["config"]))
    zoo, started = parts.config.zoo, time.monotonic()
    own = [host_seed(zoo.seed, job["role"], number) for number in range(job["start"], job["stop"])]
    if job["step"] == 1:
        params = steps.train_hosts(parts.task, parts.source, zoo.step1, own, parts.device, report)
    else:
        whole, _ = store.load_params(Path(job["hosts"]))
        first = params_.take(whole, range(len(own)))
        params = steps.train_targets(parts.task, parts.target, first, zoo.step2, own, parts.device, report)
    record = {"format": FORMAT, "step": job["step"], "role": job["role"], "start": job["start"], "seeds": own}
    store.save_params(Path(job["file"]), params, {**record, "seconds": time.monotonic() - started})
