"""The paper's published zoos: `.pth` files, one for each model, in folders for the parts of its host.

    inputs/1.pth  backup_begin/1.pth  backup_last/1.pth  labels/1.pth

They are loaded with `weights_only`, so nothing in them is executed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from paramtrans.api.modules import tensor_specs
from paramtrans.api.specs import TensorSpec
from paramtrans.api.stacking import Params, join
from paramtrans.errors import StoreError
from paramtrans.storage import locks, torch_checkpoint
from paramtrans.utils.counts import counted
from paramtrans.zoo.recipe import Shard
from paramtrans.zoo.zoo import ROLES, Zoo

FOLDERS = {"former": "backup_begin", "source": "inputs", "latter": "backup_last", "target": "labels"}
HOST = ("former", "source", "latter")
SUFFIXES = (".pth", ".pt")
IGNORED = "num_batches_tracked"
SLACK = 1 << 20
"""Bytes that a file may have beyond its values."""

Names = Mapping[str, Mapping[str, str]]
"""For each part: our name of a tensor → the file's."""


@dataclass(frozen=True)
class ShardModels:
    """A shard to be filled, and the models that go into it."""

    step: int
    shard: Shard
    models: list[str]


def is_published(folder: Path) -> bool:
    """Whether a folder is laid out like the paper's zoos."""
    return (folder / FOLDERS["source"]).is_dir()


def models(folder: Path, parts: Sequence[str]) -> list[str]:
    """The names of the models that have a file in every part, in the order of their numbers."""
    stems = []
    for part in parts:
        where = folder / FOLDERS[part]
        if not where.is_dir():
            raise StoreError(f"{where}: is missing; a published zoo has {', '.join(FOLDERS.values())}")
        stems.append({path.stem for path in where.iterdir() if path.suffix in SUFFIXES})
    common = set.intersection(*stems)
    if not common:
        raise StoreError(f"{folder}: no model has a file in each of {', '.join(FOLDERS[part] for part in parts)}")
    return sorted(common, key=lambda stem: [(int(n), "") if n.isdigit() else (0, n) for n in re.split(r"(\d+)", stem)])


def load(folder: Path, part: str, model: str, specs: Sequence[TensorSpec], names: Names) -> Params:
    """One part of one model, under our names; raises `StoreError` where it is another block."""
    path = next((p for s in SUFFIXES if (p := folder / FOLDERS[part] / f"{model}{s}").exists()), None)
    if path is None:
        raise StoreError(f"{folder / FOLDERS[part] / model}.pth: is missing")
    state = _state(path, sum(spec.numel for spec in specs))
    pairs = names.get(part) or _paired(path, state, specs)
    params = {}
    for spec in specs:
        tensor = state.get(pairs.get(spec.name, spec.name))
        if tensor is None or tuple(tensor.shape) != spec.shape:
            shown = "nothing" if tensor is None else list(tensor.shape)
            raise StoreError(f"{path}: {spec.name} should have shape {list(spec.shape)}, the file has {shown}")
        params[spec.name] = tensor.float().contiguous()
    return params


def _state(path: Path, values: int) -> dict[str, Tensor]:
    """The tensors of a file, and nothing else it may hold; refused unread where it is far larger than they are."""
    if path.is_symlink():
        raise StoreError(f"{path}: is a symbolic link, and might lead anywhere")
    content = torch_checkpoint.read(path, at_most=16 * values + SLACK)
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise StoreError(f"{path}: holds no dictionary of tensors by name")
    kept = {key: tensor for key, tensor in content.items() if not key.endswith(IGNORED)}
    for key, tensor in kept.items():
        plain = isinstance(tensor, Tensor) and tensor.layout == torch.strided and tensor.device.type == "cpu"
        if not plain or not tensor.is_floating_point():
            raise StoreError(f"{path}: {key[:80]} is no plain tensor of numbers")
    return kept


def _paired(path: Path, state: Mapping[str, Tensor], specs: Sequence[TensorSpec]) -> dict[str, str]:
    """Our names → the file's: the same, or by order, where shapes and the last words of the names agree."""
    if state.keys() == {spec.name for spec in specs}:
        return {spec.name: spec.name for spec in specs}
    theirs = [(key.rpartition(".")[2], tuple(tensor.shape)) for key, tensor in state.items()]
    if theirs == [(spec.name.rpartition(".")[2], spec.shape) for spec in specs]:
        return dict(zip((spec.name for spec in specs), state, strict=True))
    shown = ", ".join(f"{key} {list(tensor.shape)}" for key, tensor in list(state.items())[:12])
    wanted = ", ".join(f"{spec.name} {list(spec.shape)}" for spec in specs)
    raise StoreError(f"{path}: is another block, or in another order: it has {shown}; expected {wanted}; see --names")


def enter(zoo: Zoo, folder: Path, names: Names, progress: Callable[[int], None] = lambda done: None) -> dict[str, int]:
    """Put a published zoo into the cache as a config's zoo: models in order, for training, selection and report.

    All is checked before anything is written.

    Args:
        zoo: The config's zoo.
        folder: Where the published one is.
        names: How its tensors are called here.
        progress: Called with numbers of files done since its last call.

    Returns:
        How many hosts each role got, and how many targets came with them.

    Raises:
        StoreError: there are too few models, or one is of another architecture.
    """
    if not zoo.config.zoo.origin:
        raise StoreError("zoo.origin: give the zoo a name, so that it is never taken for one trained here")
    whole = models(folder, HOST)
    wanted = {role: zoo.count(role) for role in ROLES}
    if len(whole) < sum(wanted.values()):
        raise StoreError(
            f"{folder}: has {counted(len(whole), 'whole model')}, the config asks for {sum(wanted.values()):,}"
        )
    of_role, taken = {}, 0
    for role, count in wanted.items():
        of_role[role], taken = whole[taken : taken + count], taken + count
    with_target = set(models(folder, ["target"])) if (folder / FOLDERS["target"]).is_dir() else set()
    jobs = [
        ShardModels(1, shard, of_role[role][shard.start : shard.stop])
        for role in ROLES
        for shard in zoo.host_shards(role)
    ]
    trained = [ShardModels(2, s, of_role[role][s.start : s.stop]) for role in ROLES for s in zoo.target_shards(role)]
    jobs += [job for job in trained if with_target.issuperset(job.models)]
    for job in jobs:  # everything is read once before anything is written
        _stacked(zoo, folder, job, names)
        progress(1)
    with locks.locked(zoo.dir, "choose another cache"):
        for job in jobs:
            zoo.write_recipe(job.step)
            zoo.put(job.step, job.shard, _stacked(zoo, folder, job, names), {"imported": zoo.config.zoo.origin})
            progress(1)
    return {**wanted, "targets": sum(len(job.models) for job in jobs if job.step == 2)}


def _stacked(zoo: Zoo, folder: Path, job: ShardModels, names: Names) -> Params:
    """Parts of several models, as a shard holds them."""
    specs, parts = _specs(zoo), HOST if job.step == 1 else ("target",)
    states = [join({part: load(folder, part, name, specs[part], names) for part in parts}) for name in job.models]
    return {name: torch.stack([state[name] for state in states]) for name in states[0]}


def _specs(zoo: Zoo) -> dict[str, tuple[TensorSpec, ...]]:
    """The tensors of each part of a host, and of the target block."""
    builder = zoo.builder
    around = {"former": builder.task.former, "source": builder.source.module, "latter": builder.task.latter}
    with torch.device("meta"):
        return {name: tensor_specs(make()) for name, make in around.items()} | {"target": builder.target.spec.tensors}
