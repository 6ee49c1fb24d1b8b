"""Processes that share one piece of work, as torchrun starts them; alone, a process is a process group of one."""

from __future__ import annotations

import atexit
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cache

import torch
import torch.distributed as dist
from torch import Tensor

if dist.is_available():
    # Its functions keep the group that they find when they are imported, which torch.compile and torch.export do. A
    # group that is kept is never taken down: its threads run into the end of the interpreter, which may then abort.
    import torch.distributed.nn.functional

PATIENCE = timedelta(days=365)
"""How long processes wait for the first one, which makes the zoo. torchrun ends all where one fails."""


@dataclass(frozen=True)
class ProcessGroup:
    """`size` processes, of which this is number `rank`. All of them call the same methods in the same order."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process decides and writes; the others work along, and write nothing."""
        return self.rank == 0

    def share(self, count: int) -> range:
        """This process's part of `count` things. Parts differ by one at most, and may be empty."""
        return cut(count, self.size)[self.rank]

    def add(self, tensors: Sequence[Tensor]) -> None:
        """Put the sum over all processes in place of each tensor.

        Args:
            tensors: All of one type, and in the same order in every process.
        """
        if self.size > 1:
            whole = torch.cat([tensor.flatten() for tensor in tensors])
            dist.all_reduce(whole)
            for tensor, summed in zip(tensors, whole.split([t.numel() for t in tensors]), strict=True):
                tensor.copy_(summed.view_as(tensor))

    def join(self, rows: Tensor) -> Tensor:
        """The rows of all processes, one process after the other.

        Args:
            rows: `[n, ...]`; `n` may differ from process to process.
        """
        if self.size == 1:
            return rows
        counts = torch.zeros(self.size, dtype=torch.long)
        counts[self.rank] = len(rows)
        self.add([counts])
        start, end = int(counts[: self.rank].sum()), int(counts[: self.rank + 1].sum())
        joined = rows.new_zeros(int(counts.sum()), *rows.shape[1:])
        joined[start:end] = rows
        self.add([joined])
        return joined

    def follow(self, tensor: Tensor) -> Tensor:
        """Put the values of the process that leads in place of this one's; returns the tensor."""
        if self.size > 1:
            values = tensor.contiguous()
            dist.broadcast(values, src=0)
            tensor.copy_(values)
        return tensor


ALONE = ProcessGroup()
"""A process that shares nothing."""


def cut(count: int, parts: int) -> list[range]:
    """`count` things in order, cut into parts as even as may be."""
    return [range(count * i // parts, count * (i + 1) // parts) for i in range(parts)]


@cache
def process_group() -> ProcessGroup:
    """The group that torchrun started this process in, joined at the first call; of size 1 without torchrun."""
    if not (dist.is_available() and dist.is_torchelastic_launched()):
        return ALONE
    if dist.is_initialized():  # by the script that torchrun started
        return ProcessGroup(dist.get_rank(), dist.get_world_size())
    # Where processes share a GPU, only gloo can add up what they found.
    own_gpu = torch.cuda.is_available() and int(os.environ["LOCAL_WORLD_SIZE"]) <= torch.cuda.device_count()
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
    dist.init_process_group("cpu:gloo,cuda:nccl" if own_gpu else "gloo", timeout=PATIENCE)
    atexit.register(_leave)
    return ProcessGroup(dist.get_rank(), dist.get_world_size())


def _leave() -> None:
    if dist.is_initialized():  # a script may have left it before
        dist.destroy_process_group()
