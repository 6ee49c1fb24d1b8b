"""Hosts one at a time with all data in memory as tensors, a process for each core."""

from __future__ import annotations

import multiprocessing
import os
import time
from multiprocessing.connection import Connection
from types import TracebackType

import torch
from torch import nn, optim

from benchmarks.setting import BATCH, Setting, Size


class Processes:
    """One process a core, each training its own host with one thread."""

    def __init__(self, setting: Setting, count: int | None = None) -> None:
        self.size = setting.size
        context = multiprocessing.get_context("spawn")
        self.pipes, self.workers = [], []
        for _ in range(count or len(os.sched_getaffinity(0))):
            ours, theirs = context.Pipe()
            worker = context.Process(target=_work, args=(theirs, setting.size), daemon=True)
            worker.start()
            self.pipes.append(ours)
            self.workers.append(worker)
        for pipe in self.pipes:
            pipe.recv()

    def __call__(self) -> float:
        """Model-images per second of all processes together over a turn."""
        started = time.perf_counter()
        for pipe in self.pipes:
            pipe.send(self.size.steps)
        for pipe in self.pipes:
            pipe.recv()
        return len(self.pipes) * self.size.steps * BATCH / (time.perf_counter() - started)

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for worker in self.workers:
            worker.terminate()
            worker.join()


def _work(pipe: Connection, size: Size) -> None:
    """Train as many steps as the pipe asks for, for ever."""
    torch.set_num_threads(1)
    setting = Setting(size)
    host = setting.host()
    optimizer = optim.SGD(host.parameters(), 0.01, 0.9)
    data = setting.parts.task.split("train")
    images, labels = setting.parts.task.to_input(data.inputs), data.labels
    pipe.send("ready")
    order = torch.randperm(len(images)).split(BATCH)
    at = 0
    while True:
        for _ in range(pipe.recv()):
            chosen = order[at % len(order)]
            at += 1
            inputs = images[chosen]
            flipped = torch.rand(len(chosen)) < 0.5
            inputs = torch.where(flipped[:, None, None, None], inputs.flip(-1), inputs)
            optimizer.zero_grad()
            nn.functional.cross_entropy(host(inputs), labels[chosen]).backward()
            optimizer.step()
        pipe.send("done")
