"""Hosts one at a time with all data as tensors: in memory with a process for each core, or on a GPU."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from types import TracebackType

import torch
from torch import nn, optim

from benchmarks.setting import BATCH, Setting, Size
from benchmarks.turns import rate


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


class OneProcess:
    """One host at a time with all data on the device, in this process."""

    def __init__(self, setting: Setting) -> None:
        self.steps, self.training = setting.size.steps, _training(setting)

    def __call__(self) -> float:
        """Model-images per second over a turn."""
        return rate(self.steps * BATCH, lambda: [next(self.training) for _ in range(self.steps)])

    def __enter__(self) -> OneProcess:
        return self

    def __exit__(self, *error: object) -> None:
        pass


def _work(pipe: Connection, size: Size) -> None:
    """Train as many steps as the pipe asks for, for ever."""
    torch.set_num_threads(1)
    training = _training(Setting(size))
    next(training)
    pipe.send("ready")
    while True:
        for _ in range(pipe.recv()):
            next(training)
        pipe.send("done")


def _training(setting: Setting) -> Iterator[None]:
    """Steps of training one host, for ever."""
    host = setting.host()
    optimizer = optim.SGD(host.parameters(), 0.01, 0.9)
    data = setting.builder.task.split("train")
    images, labels = setting.builder.task.to_input(data.inputs.to(setting.device)), data.labels.to(setting.device)
    while True:
        for chosen in torch.randperm(len(images), device=setting.device).split(BATCH):
            inputs = images[chosen]
            flipped = torch.rand(len(chosen), device=setting.device) < 0.5
            inputs = torch.where(flipped[:, None, None, None], inputs.flip(-1), inputs)
            optimizer.zero_grad()
            nn.functional.cross_entropy(host(inputs), labels[chosen]).backward()
            optimizer.step()
            yield
