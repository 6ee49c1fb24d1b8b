"""Parameters on disk: a safetensors file and beside it a record with its checksum, which tells damage."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file

from paramtrans.api.stacking import Params
from paramtrans.errors import Damaged
from paramtrans.storage import files, json_files, outside

MAX_HEADER = 2**20
"""Bytes of a parameter file beside its values, at most, where their number is known."""


def save_params(path: Path, params: Params, record: Mapping[str, Any]) -> None:
    """Write parameters, and last a record of them, whose presence says that the file before it is complete.

    Args:
        path: The file of parameters, safetensors; the record is `path` + `.json`.
        params: Tensors by name.
        record: What is said of them; size and checksum are added.

    Raises:
        StoreError: they cannot be written.
    """
    sealed: dict[str, Any] = {}

    def write(file: Path) -> None:
        try:
            save_file(_apart(params), file)
        except SafetensorError as error:
            raise OSError(str(error)) from error
        sealed.update(bytes=file.stat().st_size, sha256=files.checksum(file))

    files.write_by(path, write)
    json_files.write_sealed(record_path(path), {**record, **sealed})


def _apart(params: Params) -> Params:
    """Tensors of which no two share memory, on the CPU; none is copied without need."""
    apart: Params = {}
    storages: set[int] = set()
    for name, tensor in params.items():
        plain = tensor.detach().cpu().contiguous()
        storage = plain.untyped_storage().data_ptr()
        apart[name] = plain.clone() if storage in storages else plain
        storages.add(storage)
    return apart


def load_params(path: Path, at_most: int | None = None) -> tuple[Params, dict[str, Any]]:
    """What `save_params` wrote, with its record.

    Args:
        path: The file of parameters.
        at_most: Bytes of values above which a file is not read.

    Raises:
        Damaged: anything changed since, or there is no record.
    """
    record = load_record(path)
    if at_most is not None and record["bytes"] > (most := at_most + MAX_HEADER):
        raise Damaged(f"{path}: {record['bytes']:,} bytes, but no such file has more than {most:,}")
    return read_params(path, record), record


def read_params(path: Path, record: Mapping[str, Any]) -> Params:
    """The parameters in a file whose `record` is kept elsewhere; raises `Damaged` where they differ from it."""
    verify(path, record)
    # Copies, because results of vector instructions depend on where tensors lie in memory, and files align nothing.
    return {name: tensor.clone() for name, tensor in outside.tensors(path).items()}


def verify(path: Path, record: Mapping[str, Any]) -> None:
    """Raises `Damaged` where a file has another size or checksum than its `record` says."""
    if not files.exists(path):
        raise Damaged(f"{path}: missing, though its record is there")
    size = outside.size(path)
    if size != record.get("bytes"):
        raise Damaged(f"{path}: {size:,} bytes, expected {record.get('bytes')}; it was cut off or replaced")
    if files.checksum(path) != record.get("sha256"):
        raise Damaged(f"{path}: checksum differs from its record; it was changed after it was written")


def load_record(path: Path) -> dict[str, Any]:
    """The record of a parameter file; raises `Damaged` where it does not carry its own checksum, or is none."""
    if files.exists(path) and not files.exists(record_path(path)):
        otherwise = "put both in one folder, or load it as a checkpoint, if paramtrans did not write it"
        raise Damaged(f"{record_path(path)}: is not there, though {path.name} is; {otherwise}")
    record = json_files.unsealed(record_path(path), json_files.read_json(record_path(path)))
    if not (isinstance(record.get("bytes"), int) and isinstance(record.get("sha256"), str)):
        raise Damaged(f"{record_path(path)}: is not the record of a parameter file")
    return record


def record_path(path: Path) -> Path:
    """Where the record of a parameter file stands."""
    return path.with_name(path.name + ".json")


def written(path: Path, at_most: int | None = None) -> int:
    """When a parameter file was finished.

    Args:
        path: The file of parameters.
        at_most: One that is later, as a clock was set back, is given this time.

    Returns:
        Nanoseconds as files tell time; 0 where it was not finished.
    """
    place = record_path(path)
    try:
        finished = place.stat().st_mtime_ns
        if at_most is not None and finished > at_most:
            os.utime(place, ns=(at_most, at_most))
            return at_most
        return finished
    except FileNotFoundError:
        return 0
