"""How much memory there is to spare; running out of it, with a hint: where, and what would need less."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from paramtrans.errors import OutOfMemory

SIGNS = ("can't allocate memory", "out of memory", "not enough memory", "storage size calculation overflowed")
"""What torch's allocators say where a tensor is larger than memory, or than any; any other overflow is a defect."""
LESS = "lower zoo.shard, training.batch_size, or the sizes of task, blocks and translator; what was finished is kept"


@contextmanager
def out_of_memory_hint(what: str, instead: str = LESS) -> Iterator[None]:
    """Turns running out of memory into `OutOfMemory`: `what` was done, and what to do `instead`."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        text = (str(error).splitlines() or [""])[0]
        if isinstance(error, RuntimeError) and not any(sign in text.lower() for sign in SIGNS):
            raise
        raise OutOfMemory(f"{what}: not enough memory{f' ({text})' if text else ''}; {instead}") from error


def spare() -> int:
    """Bytes that this process may take beside what it has: half of what is free, in proportion to its threads, so that
    others on the machine may do the same. 0 where the system does not tell."""
    import torch

    try:
        free = int(Path("/proc/meminfo").read_text().partition("MemAvailable:")[2].split()[0]) * 1024
    except (OSError, IndexError, ValueError):
        return 0
    share = min(1.0, torch.get_num_threads() / (os.cpu_count() or 1))
    return int(min(free, _below_limit()) * share / 2)


def _below_limit() -> float:
    """Bytes left below the limit of a container; infinite without one."""
    try:
        limit, used = (Path(f"/sys/fs/cgroup/memory.{what}").read_text().strip() for what in ("max", "current"))
        return int(limit) - int(used)
    except (OSError, ValueError):
        return float("inf")


ARENAS = -8
"""`M_ARENA_MAX` of glibc: among how many pools for freed memory its threads are spread."""
ONE = "MALLOC_ARENA_MAX"
"""The same in the environment of a process."""


def in_one_pool() -> None:
    """Let all threads share what the C library keeps of freed memory (glibc), so that less has to be given back.

    It holds for the whole process until it ends, so it is for processes that are ours.
    """
    global _in_one_pool
    _in_one_pool = (set_option := _of_c_library("mallopt")) is not None and bool(set_option(ARENAS, 1))


_in_one_pool = os.environ.get(ONE) == "1"


def give_back(of_thread: bool = False) -> None:
    """Let the system have what was freed, where the C library keeps it for later (glibc).

    It keeps this apart for each thread, so that passes of a network in several threads would hold several times what
    one of them needs on its way. Getting it again costs time, so that of one thread stays where the next one has it.

    Args:
        of_thread: Whether it is what one of several threads freed, which run in turn.
    """
    if of_thread and _in_one_pool:
        return
    if (trim := _of_c_library("malloc_trim")) is not None:
        trim(0)


@cache
def _of_c_library(name: str) -> Callable[..., int] | None:
    """A function of the C library; None where it has none of this name."""
    try:
        function: Callable[..., int] = getattr(ctypes.CDLL(None), name)
    except (AttributeError, OSError, TypeError):
        return None
    return function
