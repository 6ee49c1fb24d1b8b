"""Zoos that leave and enter: a folder of plain safetensors files, and one index with all that is known of them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from paramtrans._version import __version__
from paramtrans.api.hosts import in_hosts
from paramtrans.api.stacking import Params
from paramtrans.errors import Damaged, StoreError
from paramtrans.storage import files, json_files, locks, outputs, outside, sealed_params
from paramtrans.utils.counts import counted
from paramtrans.zoo.exchange_index import PLACE, Index
from paramtrans.zoo.host_file import network_state
from paramtrans.zoo.recipe import digest, hosts_digest

FORMAT = 1
INDEX = "index.json"
Progress = Callable[[int], None]


@dataclass(frozen=True)
class File:
    """One shard: its place inside the zoo, and its record."""

    path: str
    record: dict[str, Any]

    @property
    def target(self) -> str | None:
        """The name of its target recipe; None for hosts."""
        return self._place[2]

    @property
    def role(self) -> str:
        return self._place[3]

    @property
    def hosts(self) -> str:
        """The place of the hosts that a shard of targets belongs to; it may end before them."""
        return f"hosts/{self._place[3]}-{self._place[4]}-"

    @property
    def count(self) -> int:
        return int(self._place[5]) - int(self._place[4])

    @property
    def _place(self) -> re.Match[str]:
        match = PLACE.fullmatch(self.path)
        if match is None:
            raise Damaged(f"{self.path[:200]}: is no place of a file in a zoo")
        return match

    @property
    def numbers(self) -> range:
        """The hosts of its role that are in it."""
        return range(int(self._place[4]), int(self._place[5]))

    def check(self, where: Path) -> None:
        """Raise `Damaged` unless the record says the same as the place."""
        expected = (2 if self.target else 1, self._place[3], self.numbers.start, self.count)
        recorded = (self.record["step"], self.record["role"], self.record["start"], len(self.record["seeds"]))
        if recorded != expected:
            raise Damaged(f"{where}: its record is not that of {self.path}")


@dataclass(frozen=True)
class Contents:
    """A zoo as it lies in a folder: in the cache, or exported."""

    folder: Path
    recipe: dict[str, Any]
    targets: dict[str, dict[str, Any]]
    """Recipes of target blocks, by name."""
    files: tuple[File, ...]

    def load(self, file: File) -> Params:
        """A file's tensors; raises `Damaged` unless they are what its record and the recipe say, `[hosts, *shape]`."""
        path = self.folder / file.path
        if path.is_symlink() or path.parent.resolve() != (self.folder.resolve() / file.path).parent:
            raise Damaged(f"{path}: is a link, and might lead anywhere")
        params = sealed_params.read_params(path, file.record)
        # Recipes have the names of a network, and those of a target block alone.
        listed = self.recipe["tensors"] if file.target is None else self.targets[file.target]["tensors"]
        in_file = in_hosts if file.target is None else "target.{}".format
        wanted = {in_file(name): (file.count, *shape) for name, shape in listed}
        if wanted != {name: tuple(tensor.shape) for name, tensor in params.items()}:
            raise Damaged(f"{path}: its tensors are not those of the recipe")
        if other := sorted({str(t.dtype) for t in params.values() if t.dtype != torch.float32}):
            raise Damaged(f"{path}: holds {', '.join(other)}, and hosts are torch.float32")
        return params


def contents(folder: Path) -> Contents:
    """What lies in a folder of the cache, or in an exported one; raises `StoreError` where it is no zoo."""
    if (folder / INDEX).exists():
        return _exported(folder)
    if not (folder / "recipe.json").exists():
        raise StoreError(f"{folder}: is no zoo: it holds neither {INDEX} nor recipe.json")
    targets = {path.parent.name: json_files.read_json(path) for path in sorted(folder.glob("targets/*/recipe.json"))}
    shards = sorted([*folder.glob("hosts/*.safetensors.json"), *folder.glob("targets/*/*.safetensors.json")])
    listed = [
        {
            "path": path.with_suffix("").relative_to(folder).as_posix(),
            "record": sealed_params.load_record(path.with_suffix("")),
        }
        for path in shards
    ]
    return _checked(folder, json_files.read_json(folder / "recipe.json"), targets, listed)


def export(zoo: Contents, out: Path, progress: Progress = lambda done: None) -> None:
    """Copy a zoo to a new folder. The index is written last, so that a folder with one is complete.

    Args:
        zoo: What lies in the cache.
        out: The new folder.
        progress: Called with numbers of files done since its last call.

    Raises:
        StoreError: a file is damaged, or the folder cannot be written.
    """
    outputs.check_folder(out, [zoo.folder])
    listed = []
    for file in zoo.files:
        tensors = {name: list(tensor.shape) for name, tensor in zoo.load(file).items()}
        files.write_bytes(out / file.path, outside.content(zoo.folder / file.path))
        listed.append({"path": file.path, "tensors": tensors, "record": file.record})
        progress(1)
    index = {"format": FORMAT, "paramtrans": __version__, "recipe": zoo.recipe, "targets": zoo.targets}
    json_files.write_sealed(out / INDEX, {**index, "files": listed})


def enter(zoo: Contents, cache: Path, progress: Progress = lambda done: None) -> Path:
    """Put an exported zoo into the cache. All is checked before anything is written.

    Args:
        zoo: What lies in the exported folder.
        cache: The cache's folder.
        progress: Called with numbers of files done since its last call.

    Returns:
        The zoo's folder in the cache.

    Raises:
        StoreError: a file is damaged, or the cache holds another one in its place.
    """
    folder = cache / "zoos" / digest(zoo.recipe)
    for file in zoo.files:
        params = zoo.load(file)
        if file.target is not None and file.record.get("hosts_sha256") != _hosts(zoo, file):
            raise Damaged(f"{zoo.folder / file.path}: its targets were trained in other hosts than those here")
        if sealed_params.record_path(folder / file.path).exists() and not _same(
            params, sealed_params.load_params(folder / file.path)[0]
        ):
            raise StoreError(
                f"{folder / file.path}: is there already, and differs; remove that zoo, or use another cache"
            )
        progress(1)
    with locks.locked(folder, "choose another cache"):
        json_files.write_json(folder / "recipe.json", zoo.recipe)
        for name, recipe in zoo.targets.items():
            json_files.write_json(folder / "targets" / name / "recipe.json", recipe)
        for file in zoo.files:
            kept = {key: value for key, value in file.record.items() if key not in ("bytes", "sha256")}
            sealed_params.save_params(folder / file.path, zoo.load(file), kept)
            progress(1)
    return folder


def take(zoo: Contents, role: str, number: int) -> Params:
    """One host of a zoo as the state of a network.

    Args:
        zoo: The zoo.
        role: `train`, `select` or `report`.
        number: Which of its hosts.

    Raises:
        StoreError: it is not there.
    """
    role_files = [file for file in zoo.files if file.target is None and file.role == role]
    for file in role_files:
        if number in file.numbers:
            return network_state(zoo.load(file), number - file.numbers.start)
    there = sum(file.count for file in role_files)
    raise StoreError(f"{zoo.folder}: has {counted(there, f'host of role {role}')}, and no number {number} among them")


def summary(zoo: Contents) -> dict[str, Any]:
    """What there is, as a JSON document."""
    hosts: dict[str, set[int]] = {}
    for file in zoo.files:
        if file.target is None:
            hosts.setdefault(file.record["role"], set()).update(file.numbers)
    return {
        "folder": str(zoo.folder),
        "name": digest(zoo.recipe),
        "task": zoo.recipe["task"],
        "source": zoo.recipe["source"],
        "hosts": {role: len(numbers) for role, numbers in hosts.items()},
        "targets": [
            {"name": name, "target": recipe["target"], "hosts": _trained(zoo, name)}
            for name, recipe in zoo.targets.items()
        ],
        "tensors": dict(zoo.recipe["tensors"]),
        "files": len(zoo.files),
        "bytes": sum(file.record["bytes"] for file in zoo.files),
        "seconds": sum(file.record["seconds"] for file in zoo.files),
    }


def _trained(zoo: Contents, target: str) -> int:
    """How many hosts have a target of a recipe."""
    return len({(f.record["role"], number) for f in zoo.files if f.target == target for number in f.numbers})


def _exported(folder: Path) -> Contents:
    path = folder / INDEX
    index = json_files.unsealed(path, json_files.read_json(path))
    if type(index.get("format")) is not int:
        raise Damaged(f"{path}: says no format; it is no index of a zoo")
    json_files.check_format(path, index["format"], (FORMAT,))
    return _checked(folder, index.get("recipe"), index.get("targets"), index.get("files"))


def _checked(folder: Path, recipe: Any, targets: Any, listed: Any) -> Contents:
    """A zoo whose recipes and records are of the form that is used here; what they say of files is checked later."""
    try:
        document = {"recipe": recipe, "targets": targets, "files": listed}
        Index.model_validate_json(json.dumps(document), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        raise Damaged(f"{folder}: {'.'.join(map(str, first['loc']))}: {first['msg']}; it was damaged") from error
    if wrong := [name for name, target in targets.items() if digest(target) != name]:
        raise Damaged(f"{folder}: target recipe {wrong[0][:40]} has another name than its content")
    files = tuple(File(item["path"], item["record"]) for item in listed)
    if not files:
        raise Damaged(f"{folder}: holds no file of hosts; it is no whole zoo")
    for file in files:
        file.check(folder / file.path)
        if file.target is not None and file.target not in targets:
            raise Damaged(f"{folder}: {file.path} belongs to no recipe there")
    return Contents(folder, recipe, targets, files)


def _hosts(zoo: Contents, file: File) -> str | None:
    """The checksum of the hosts that a file of targets was trained in."""
    holder = next((f for f in zoo.files if f.path.startswith(file.hosts)), None)
    return None if holder is None else hosts_digest(zoo.load(holder), file.count)


def _same(first: Params, second: Params) -> bool:
    return first.keys() == second.keys() and all(first[name].equal(second[name]) for name in first)
