"""What decides which hosts a zoo has: recipes and shards, and the digests that name and check them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from paramtrans.api.specs import TensorSpec
from paramtrans.api.stacking import Params
from paramtrans.config.schema import Config
from paramtrans.storage import json_files
from paramtrans.zoo.host_seeds import host_seed

FORMAT = 1
"""Version of a zoo on disk: its shards, their records, and the meaning of its recipe."""


@dataclass(frozen=True)
class Shard:
    """Hosts `start` to `stop` of one role, or snapshots of them; one file for step 1 and one for step 2."""

    role: str
    start: int
    stop: int

    @property
    def file(self) -> str:
        return f"{self.role}-{self.start:07d}-{self.stop:07d}.safetensors"

    def seeds(self, zoo_seed: int) -> list[int]:
        """One for each host."""
        return [host_seed(zoo_seed, self.role, number) for number in range(self.start, self.stop)]


def shards(role: str, count: int, size: int) -> list[Shard]:
    """`count` hosts of a role, cut into shards of `size`."""
    return [Shard(role, start, min(start + size, count)) for start in range(0, count, size)]


def host_recipe(config: Config, reading_options: frozenset[str] = frozenset()) -> dict[str, Any]:
    """All that decides what a host of step 1 becomes; zoos with equal recipes are one zoo."""
    source = config.source.model_dump(mode="json")
    return {
        "format": FORMAT,
        "task": config.task.model_dump(mode="json"),
        "source": {key: value for key, value in source.items() if key not in reading_options},
        "step1": config.zoo.step1.model_dump(mode="json"),
        "seed": config.zoo.seed,
        "shard": config.zoo.shard,
        **({"origin": config.zoo.origin} if config.zoo.origin else {}),
    }


def target_recipe(config: Config) -> dict[str, Any]:
    """All that decides what a trained target of step 2 becomes, given its host."""
    return {
        "format": FORMAT,
        "target": config.target.model_dump(mode="json"),
        "step2": config.zoo.step2.model_dump(mode="json"),
    }


def identity(step: int, shard: Shard, zoo_seed: int) -> dict[str, Any]:
    """What a shard's record says of which shard it is."""
    seeds = shard.seeds(zoo_seed)
    return {"format": FORMAT, "step": step, "role": shard.role, "start": shard.start, "seeds": seeds}


def digest(recipe: dict[str, Any]) -> str:
    """A recipe's name on disk."""
    return json_files.digest(recipe)[:16]


def hosts_digest(hosts: Params, count: int) -> str:
    """A checksum of the first `count` hosts of a shard, whatever others stand behind them."""
    sha256 = hashlib.sha256()
    for name in sorted(hosts):
        sha256.update(hosts[name][:count].contiguous().numpy().tobytes())
    return sha256.hexdigest()


def tensors(specs: Iterable[TensorSpec]) -> dict[str, Any]:
    """Part of a recipe: what the modules hold, so that one whose code was changed is another."""
    return {"tensors": [[spec.name, list(spec.shape)] for spec in specs]}
