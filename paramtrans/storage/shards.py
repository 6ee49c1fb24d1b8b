"""Many parameter files as one stack: models anywhere in it, memory-mapped, without reading a file whole."""

from __future__ import annotations

import json
import math
import mmap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from paramtrans.api.stacking import Params
from paramtrans.errors import Damaged, StoreError
from paramtrans.storage import sealed_params

OPEN = 4096
"""Files that are kept mapped at once."""
HEADER = 8
"""Bytes that say how long the description of a file's tensors is."""


Shapes = tuple[tuple[str, tuple[int, ...]], ...]


@dataclass(frozen=True)
class ShardLayout:
    """Where a file keeps its tensors `[models, *shape]`, counted in values."""

    models: int
    shapes: Shapes
    starts: NDArray[np.int64]
    """Place of each value of the first model, all tensors one after the other."""
    steps: NDArray[np.int64]
    """How much further on the same value of the next model is."""


class Shards:
    """A stack of models spread over files that `sealed_params.save_params` wrote, in the order given.

    Only the tensors are read whose names begin with one of `prefixes`. Files are mapped when they are first needed;
    `check` compares them with their checksums (`sealed_params.verify`), and reading does not.
    """

    def __init__(self, paths: Sequence[Path], prefixes: tuple[str, ...] = ("",)) -> None:
        self.paths = list(paths)
        self._map = lru_cache(maxsize=OPEN)(lambda number: _map(self.paths[number], prefixes))
        self._ends = np.cumsum([_map(path, prefixes)[1].models for path in self.paths], dtype=np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def take(self, index: Tensor | Sequence[int]) -> Params:
        """The models at `index`, in that order, copied: name → `[len(index), *shape]`."""
        wanted = np.asarray(index, dtype=np.int64)
        if len(wanted) and not (wanted.min() >= 0 and wanted.max() < len(self)):
            raise IndexError(f"models {wanted.min()} to {wanted.max()} of {len(self)}")
        files = np.searchsorted(self._ends, wanted, side="right")
        order = np.argsort(files, kind="stable")
        shapes: Shapes = self._map(0)[1].shapes if self.paths else ()
        rows = np.empty((len(wanted), sum(math.prod(shape) for _, shape in shapes)), np.float32)
        for group in np.split(order, np.flatnonzero(np.diff(files[order])) + 1) if len(order) else ():
            number = int(files[group[0]])
            values, layout = self._map(number)
            if layout.shapes != shapes:
                raise StoreError(f"{self.paths[number]}: holds other tensors than {self.paths[0]}")
            inside = wanted[group] - (self._ends[number] - layout.models)
            rows[group] = values[layout.starts + inside[:, None] * layout.steps]
        return _tensors(rows, shapes)

    def one_pass(self, size: int) -> Iterator[Params]:
        """All models in order, `size` at a time; only those are held."""
        for start in range(0, len(self), size):
            yield self.take(range(start, min(start + size, len(self))))

    def check(self) -> None:
        """Read every file once; raises `Damaged` for the first that is not what was written."""
        for path in self.paths:
            sealed_params.verify(path, sealed_params.load_record(path))


def _tensors(rows: NDArray[np.float32], shapes: Shapes) -> Params:
    """Rows of values as stacked parameters."""
    params, start = {}, 0
    for name, shape in shapes:
        stop = start + math.prod(shape)
        params[name] = torch.from_numpy(rows[:, start:stop].reshape(-1, *shape).copy())
        start = stop
    return params


def _map(path: Path, prefixes: tuple[str, ...]) -> tuple[NDArray[np.float32], ShardLayout]:
    """All values of a file, not read yet, and where its tensors are among them."""
    try:
        with safe_open(path, "np"):  # raises where the description and the size of the file disagree
            pass
        with path.open("rb") as file:
            length = int.from_bytes(file.read(HEADER), "little")
            layout = _layout(file.read(length), prefixes)
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return np.frombuffer(data, np.float32, offset=HEADER + length), layout
    except SafetensorError as error:
        raise Damaged(f"{path}: not a safetensors file ({error})") from error
    except OSError as error:
        raise StoreError(f"{path}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise Damaged(f"{path}: {error}") from error


@lru_cache(maxsize=64)
def _layout(header: bytes, prefixes: tuple[str, ...]) -> ShardLayout:
    """What a file's description says of the tensors wanted; the shards of a zoo share theirs."""
    entries = {name: entry for name, entry in json.loads(header).items() if name.startswith(prefixes)}
    entries.pop("__metadata__", None)
    counts = {entry["shape"][0] if entry["shape"] else 0 for entry in entries.values()}
    if {entry["dtype"] for entry in entries.values()} != {"F32"} or len(counts) != 1:
        raise ValueError("holds no stack of float32 parameters")
    shapes = tuple((name, tuple(entries[name]["shape"][1:])) for name in sorted(entries))
    starts, steps = [], []
    for name, shape in shapes:
        size = math.prod(shape)
        starts.append(entries[name]["data_offsets"][0] // 4 + np.arange(size))
        steps.append(np.full(size, size))
    return ShardLayout(counts.pop(), shapes, np.concatenate(starts), np.concatenate(steps))
