"""What a pass of a network takes: time, and memory of tensors."""

from __future__ import annotations

import statistics
import time
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

ROUNDS, LEAST, SECONDS = 15, 3, 2.0
"""Passes that a latency is the median of; fewer, but not fewer than `LEAST`, where all together take longer."""


@torch.no_grad()
def latencies(runs: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    """Milliseconds that each call takes, the median of several; measured in turns, so that a noisy machine is noisy for
    all."""
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()  # what is set up once does not count
    started = time.perf_counter()
    for number in range(ROUNDS):
        if number >= LEAST and time.perf_counter() - started > SECONDS:
            break
        for name, run in runs.items():
            taken[name].append(_seconds(run))
    return {name: 1000 * statistics.median(seconds) for name, seconds in taken.items()}


def _seconds(run: Callable[[], object]) -> float:
    _wait()
    started = time.perf_counter()
    run()
    _wait()
    return time.perf_counter() - started


def _wait() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


@torch.no_grad()
def peak_memory(network: nn.Module, run: Callable[[], object]) -> int:
    """Bytes of all tensors that are there at once, at most, in a call of a network, its own included.

    What kernels need inside, and what an allocator keeps, is not counted; so it is the same on every machine.
    """
    with _Live() as live:
        for tensor in (*network.parameters(), *network.buffers()):
            live.see(tensor)
        run()
        most: int = live.most
        return most


class _Live(TorchDispatchMode):
    """Counts bytes of the storages of tensors that operations give, as long as they live."""

    def __init__(self) -> None:
        super().__init__()
        self.now: int = 0
        self.most: int = 0
        self._seen: set[int] = set()

    def see(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = id(storage), storage.nbytes()
        if key not in self._seen:
            self._seen.add(key)
            self.now += size
            self.most = max(self.most, self.now)
            weakref.finalize(storage, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.now -= size

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(given):
            if isinstance(leaf, Tensor):
                self.see(leaf)
        return given
