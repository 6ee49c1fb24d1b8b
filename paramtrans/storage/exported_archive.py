"""What `torch.export.save` wrote (`.pt2`): the JSON of its graph, and its tensors. Nothing in the file is unpickled.

`torch.export.load` unpickles sample inputs and objects, evaluates text as Python, and loads compiled libraries. So it
is not asked: the archive holds tensors as plain bytes, each with its kind and shape in JSON, and only these are read.
"""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from paramtrans.errors import Damaged, StoreError
from paramtrans.storage import outside
from paramtrans.storage.json_files import MAX_JSON
from paramtrans.utils import documents

MAJOR = 8
"""Version of the schema that is read, its first number; a change that older readers cannot read has another."""
MOST_MEMBERS = 100_000
DTYPES = {
    1: torch.uint8, 2: torch.int8, 3: torch.int16, 4: torch.int32, 5: torch.int64, 6: torch.float16, 7: torch.float32,
    8: torch.float64, 10: torch.complex64, 11: torch.complex128, 12: torch.bool, 13: torch.bfloat16,
}  # fmt: skip
"""Kinds of numbers, as the schema counts them."""
AGAIN = "where you trust it, torch.export.load it and torch.export.save it again with a newer torch"
MALFORMED = (KeyError, TypeError, ValueError, IndexError, AttributeError, RuntimeError, OverflowError)
"""What content that is not as the schema says leads to."""


@dataclass(frozen=True)
class ExportedArchive:
    """The content of a file of `torch.export.save`."""

    graph_module: Mapping[str, Any]
    """The schema's `GraphModule`, unchecked."""
    weights: Mapping[str, Tensor]
    """Parameters and persistent buffers by name."""
    constants: Mapping[str, Tensor]
    """Other buffers and constants by name."""
    trained: frozenset[str]
    """Names of parameters that require gradients."""
    ranges: Mapping[str, Any]
    """The least and the largest value of each free size, by its symbol, unchecked."""


def read(path: Path) -> ExportedArchive:
    """The content of a file of `torch.export.save`.

    Args:
        path: The file, as torch 2.9 or a later one writes it.

    Raises:
        StoreError: it is no regular file, damaged, of an older format, or holds what would have to be unpickled.
    """
    try:
        with outside.opened(path) as file, zipfile.ZipFile(file) as archive:
            members = _members(path, archive)
            if (order := archive.read(members["byteorder"]).decode()) != sys.byteorder:
                raise StoreError(f"{path}: is of a machine with bytes in another order ({order[:10]})")
            document = _json(path, archive, members, "models/model.json")
            if document["schema_version"]["major"] != MAJOR:
                raise StoreError(f"{path}: is of another version of torch.export's format; {AGAIN}")
            weights, trained = _tensors(path, archive, members, "data/weights/", "model_weights_config.json")
            constants, _ = _tensors(path, archive, members, "data/constants/", "model_constants_config.json")
            ranges = document["range_constraints"]
            return ExportedArchive(document["graph_module"], weights, constants, trained, ranges)
    except zipfile.BadZipFile as error:
        raise Damaged(f"{path}: is no file of torch.export.save ({error})") from error
    except (*MALFORMED, NotImplementedError, EOFError) as error:
        raise Damaged(f"{path}: is not as torch.export.save writes it ({type(error).__name__}: {error})") from error


def _members(path: Path, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Files in the archive by name, without the folder that all are in; refused where any is packed."""
    infos = archive.infolist()
    if len(infos) > MOST_MEMBERS or any(info.compress_type or info.file_size != info.compress_size for info in infos):
        raise Damaged(f"{path}: is packed or has too many parts; torch packs none")
    if sum(info.file_size for info in infos) > outside.size(path):
        raise Damaged(f"{path}: its parts say that they are larger than the file")
    members = {info.filename.partition("/")[2]: info for info in infos}
    if "models/model.json" not in members:
        what = "an older format" if "serialized_exported_program.json" in archive.namelist() else "no exported program"
        raise StoreError(f"{path}: is {what}, as it has no models/model.json; {AGAIN}")
    return members


def _json(path: Path, archive: zipfile.ZipFile, members: Mapping[str, zipfile.ZipInfo], name: str) -> Any:
    if name not in members:
        raise StoreError(f"{path}: has no {name}, as an older format; {AGAIN}")
    if members[name].file_size > MAX_JSON:
        raise Damaged(f"{path}: {name} has more than {MAX_JSON:,} bytes")
    return documents.parse(archive.read(members[name]))


def _tensors(
    path: Path, archive: zipfile.ZipFile, members: Mapping[str, zipfile.ZipInfo], folder: str, config: str
) -> tuple[dict[str, Tensor], frozenset[str]]:
    """The tensors that a config lists, and the names of those that are trained; several may share one file."""
    contents: dict[str, bytearray] = {}
    tensors: dict[str, Tensor] = {}
    trained: set[str] = set()
    for name, entry in _json(path, archive, members, folder + config)["config"].items():
        file, meta = folder + entry["path_name"], entry["tensor_meta"]
        if entry["use_pickle"] is not False or meta is None:
            raise StoreError(f"{path}: {name[:80]!r} is pickled, and nothing is unpickled; {AGAIN} without it")
        if file not in contents:
            contents[file] = bytearray(archive.read(members[file]))
        tensors[name] = _tensor(contents[file], meta)
        if entry["is_param"] is True and meta["requires_grad"] is True:
            trained.add(name)
    return tensors, frozenset(trained)


def _tensor(content: bytearray, meta: Mapping[str, Any]) -> Tensor:
    """A tensor from its bytes; raises `ValueError` where it would be larger than these."""
    dtype = DTYPES[meta["dtype"]]
    sizes, strides = ([size["as_int"] for size in meta[key]] for key in ("sizes", "strides"))
    offset = meta["storage_offset"]["as_int"]
    numbers = (*sizes, *strides, offset)
    if not all(type(number) is int and number >= 0 for number in numbers) or meta["layout"] != 7:
        raise ValueError("a tensor is not strided, or its sizes are not known")
    if prod(sizes) * dtype.itemsize > len(content):
        raise ValueError(f"a tensor of shape {sizes} is not in {len(content):,} bytes")
    if not prod(sizes):
        return torch.empty(sizes, dtype=dtype)
    flat = torch.frombuffer(content, dtype=dtype, count=len(content) // dtype.itemsize)
    return flat.as_strided(sizes, strides, offset)
