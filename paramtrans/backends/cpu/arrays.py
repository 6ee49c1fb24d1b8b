"""Memory, threads and the way in and out of lanes for stacks of models.

Stacks are `[models, ...]`; in lanes they are `[group, ..., lane]`, 16 models to a
group, the last group filled up with zeros.
"""

import math
import os
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from paramtrans.backends.cpu import array_kernels
from paramtrans.backends.cpu.vectors import LANES

NONE = np.empty(0, np.float32)
PART = 4096  # positions that one item of to_lanes moves


@cache
def _pool_of_threads(process: int, threads: int) -> ThreadPoolExecutor:
    # Keyed by process as threads do not survive a fork.
    return ThreadPoolExecutor(threads)


def launch(kernel: Callable[..., None], items: int, *args: Any, scratch: tuple[int, ...] = ()) -> None:
    """Run a kernel over all items on torch's number of threads, each with its own scratch."""
    threads = max(1, min(torch.get_num_threads(), items))

    turn = np.zeros(1, np.int64)

    def work() -> None:
        buffers = (flat(torch.zeros(size)) for size in scratch)
        kernel(turn, items, *args, *buffers)

    tasks = [_pool_of_threads(os.getpid(), threads - 1).submit(work) for _ in range(threads - 1)]
    work()
    for task in tasks:
        if not task.cancel():
            task.result()


def flat(tensor: Tensor | None) -> NDArray[Any]:
    """The memory of a contiguous tensor; empty for None."""
    return NONE if tensor is None else tensor.detach().view(-1).numpy()


def pack(stacked: Tensor) -> Tensor:
    """`[models, *shape]` to `[group, *shape, lane]`."""
    short = -len(stacked) % LANES
    full = torch.cat([stacked, stacked.new_zeros(short, *stacked.shape[1:])]) if short else stacked
    grouped: Tensor = full.unflatten(0, (-1, LANES))
    return grouped.movedim(1, -1).contiguous()


def unpack(tensor: Tensor, models: int) -> Tensor:
    """`[group, *shape, lane]` to `[models, *shape]`."""
    return tensor.movedim(-1, 1).flatten(0, 1)[:models].to(torch.float32, copy=True)


class Memory:
    """Large arrays for one user, recycled as soon as no tensor uses them.

    Fresh memory from the system is cleared page by page, which would cost as much time
    as the arithmetic.
    """

    def __init__(self) -> None:
        self._buffers: list[tuple[weakref.ref[NDArray[Any]], Tensor]] = []
        self._taking = threading.Lock()

    def empty(self, *shape: int) -> Tensor:
        """An uninitialised float32 tensor."""
        size = math.prod(shape)
        with self._taking:
            buffer = self._unused(size)
            # The tensor keeps this array object alive, whose end makes the buffer unused. Nothing is called then: an
            # interrupt that met a callback would be lost.
            window = buffer.numpy()[:size]
            self._buffers.append((weakref.ref(window), buffer))
        return torch.from_numpy(window).view(shape)

    def _unused(self, size: int) -> Tensor:
        """A buffer that no tensor uses, taken off the list, or a new one."""
        fitting = [
            (len(buffer), i)
            for i, (user, buffer) in enumerate(self._buffers)
            if size <= len(buffer) <= 2 * size and user() is None
        ]
        return self._buffers.pop(min(fitting)[1])[1] if fitting else torch.empty(size)


def _enter(stacked: Tensor, memory: Memory) -> Tensor:
    models, size = len(stacked), stacked[0].numel()
    if models > 1 and stacked.stride(0) == 0:  # the same inputs for all models
        groups = -(-models // LANES)
        same = stacked.detach()[0].unsqueeze(-1).expand(groups, *stacked.shape[1:], LANES)
        return memory.empty(*same.shape).copy_(same)
    source = stacked.detach().contiguous()
    lanes = memory.empty(-(-models // LANES), *stacked.shape[1:], LANES)
    if models % LANES:
        lanes[-1].zero_()
    launch(array_kernels.to_lanes, -(-size // PART), flat(source), flat(lanes), models, size)
    return lanes


def _leave(lanes: Tensor, models: int) -> Tensor:
    stacked = torch.empty(models, *lanes.shape[1:-1])
    size = stacked[0].numel()
    launch(array_kernels.from_lanes, -(-size // PART), flat(lanes.contiguous()), flat(stacked), models, size)
    return stacked


class Enter(Function):
    """`[models, batch, ...]` to `[group, batch, ..., lane]`."""

    @staticmethod
    def forward(ctx: Any, stacked: Tensor, memory: Memory) -> Tensor:
        ctx.models = len(stacked)
        return _enter(stacked, memory)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return _leave(gradient, ctx.models), None


class Leave(Function):
    """`[group, batch, ..., lane]` to `[models, batch, ...]`."""

    @staticmethod
    def forward(ctx: Any, lanes: Tensor, models: int, memory: Memory) -> Tensor:
        ctx.memory = memory
        return _leave(lanes, models)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return _enter(gradient, ctx.memory), None, None


def sum_parts(parts: Tensor, groups: int) -> Tensor:
    """`[group * n, *shape]` to float64 `[group, *shape]`."""
    out = torch.empty(groups, *parts.shape[1:], dtype=torch.float64)
    count, size = len(parts) // groups, out[0].numel()
    launch(array_kernels.add_parts, groups, flat(parts), flat(out), count, size)
    return out
