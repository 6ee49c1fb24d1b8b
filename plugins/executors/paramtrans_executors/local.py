"""Shards on this machine: one after the other in this process, or several processes at once."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.queues import Queue, SimpleQueue
from multiprocessing.synchronize import Event
from typing import ClassVar

import torch
from pydantic import Field, PositiveInt

from paramtrans.api.executor import Executor
from paramtrans.api.job import Job
from paramtrans.api.options import BaseOptions, Trials
from paramtrans.errors import TrainingError
from paramtrans.zoo import do_job

PATIENCE = 0.2
"""Seconds between looks at what the processes have done."""


class LocalOptions(BaseOptions):
    """How the machine is shared out."""

    processes: PositiveInt = Field(1, le=1024)
    """Shards trained at once, each in a process of its own that keeps to its share of the cores. One means this
    process, with all cores."""


class Local(Executor):
    """Trains shards on this machine."""

    Options: ClassVar[type[BaseOptions]] = LocalOptions
    options: LocalOptions
    trials: ClassVar[Trials] = ({}, {"processes": 2})

    def run(self, jobs: Sequence[Job], progress: Callable[[int], None]) -> None:
        processes = min(self.options.processes, len(jobs))
        if processes > 1:
            _spread(jobs, progress, processes)
            return
        for job in jobs:
            do_job(job, progress)


def _spread(jobs: Sequence[Job], progress: Callable[[int], None], processes: int) -> None:
    """Raises the error of the first shard that fails, and `TrainingError` where a process is killed."""
    context = multiprocessing.get_context("spawn")  # a forked process has lost its threads
    try:
        shares: SimpleQueue[list[int]] = context.SimpleQueue()
        steps: Queue[int] = context.Queue()
        began = context.Event()
    except OSError as error:
        why = f"{error.strerror or error}; is there a /dev/shm?"
        raise TrainingError(f"executor: no several processes here ({why}); set executor.processes to 1") from error
    for share in _shares(processes):
        shares.put(share)
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(processes, context, _begin, (shares, steps, began))
    try:
        pending = {pool.submit(_do, job) for job in jobs}
        while pending:
            done, pending = wait(pending, PATIENCE, FIRST_COMPLETED)
            for future in done:
                future.result()
            _report(steps, progress)
    except BrokenProcessPool as error:
        if not began.is_set():  # the script that each of them imports anew has ended them all
            raise TrainingError(
                "executor: a process could not begin; a script that starts a run does so below "
                '`if __name__ == "__main__":`, or sets executor.processes to 1'
            ) from error
        raise TrainingError(
            "executor: a process was killed, perhaps for want of memory; run again, with fewer executor.processes"
        ) from error
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()
    _report(steps, progress)


def _report(steps: Queue[int], progress: Callable[[int], None]) -> None:
    while not steps.empty():
        progress(steps.get())


def _shares(processes: int) -> list[list[int]]:
    """The cores of each process; empty where the system does not say which there are."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    return [cores[number::processes] or cores[number % len(cores or [0]) :][:1] for number in range(processes)]


_steps: Queue[int] | None = None


def _begin(shares: SimpleQueue[list[int]], steps: Queue[int], began: Event) -> None:
    """In a new process: take a share of the cores, and leave interrupts to the process that started this one."""
    global _steps
    began.set()
    _steps = steps
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    cores = shares.get()
    if cores:
        os.sched_setaffinity(0, cores)
    torch.set_num_threads(max(1, len(cores)))


def _end_with_parent() -> None:
    """Where the process that started this one was killed, nobody else ends this one; shards are whole or absent."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _do(job: Job) -> None:
    assert _steps is not None
    do_job(job, _steps.put)
