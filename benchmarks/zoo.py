"""Steps 1 and 2 of the zoo against the other ways to train as many hosts, and against the machine's peak."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.processes import Processes
from benchmarks.published import Published
from benchmarks.setting import BATCH, Setting
from benchmarks.turns import Row, rate, row, take_turns
from benchmarks.vmapped import Vmapped
from paramtrans import steps

STACK = 16
"""Hosts trained at once: the default of `zoo.shard`."""
MATRIX = 2048


def rows(setting: Setting) -> list[Row]:
    """Five rows from one series of turns. Ours are measured as whole shards, building the hosts included."""
    parts, size = setting.parts, setting.size
    hosts = steps.train_hosts(parts.task, parts.source, setting.training, setting.seeds(STACK))
    amount = STACK * size.steps * BATCH
    ours = {
        "step 1": lambda: rate(
            amount, lambda: steps.train_hosts(parts.task, parts.source, setting.training, setting.seeds(STACK))
        ),
        "step 2": lambda: rate(
            amount, lambda: steps.train_targets(parts.task, parts.target, hosts, setting.training, setting.seeds(STACK))
        ),
    }
    published = Published(setting)
    with Processes(setting) as processes:
        rivals = {"published": published, "processes": processes, "vmap": Vmapped(setting, STACK), "peak": _peak}
        found = take_turns(ours | rivals, size.rounds)
    flops = [speed * _flops(setting) / 1e9 for speed in found["step 1"]]
    workers = f"one model at a time, DataLoader with torchvision transforms, {published.workers} workers (the fastest)"
    unit, step1 = "model-images/s", found["step 1"]
    return [
        row("zoo step 1", workers, unit, step1, found["published"]),
        row(
            "zoo step 1",
            "one model at a time, tensors in memory, one process per core",
            unit,
            step1,
            found["processes"],
        ),
        row("zoo step 1", f"torch.func.vmap over the same {STACK} models", unit, step1, found["vmap"]),
        row("zoo step 1, arithmetic", "the machine's fp32 matrix product", "GFLOP/s", flops, found["peak"]),
        row("zoo step 2", "zoo step 1", unit, found["step 2"], step1),
    ]


def _flops(setting: Setting) -> float:
    """Floating-point operations of one training step for one image, as PyTorch counts them."""
    host = setting.host()
    inputs = setting.parts.task.to_input(setting.parts.task.split("train").inputs[:BATCH])
    with FlopCounterMode(display=False) as counter:
        host(inputs).sum().backward()
    return counter.get_total_flops() / BATCH


def _peak() -> float:
    """GFLOP/s of a large matrix product."""
    a, b = torch.rand(MATRIX, MATRIX), torch.rand(MATRIX, MATRIX)
    return rate(4 * 2 * MATRIX**3 / 1e9, lambda: [a @ b for _ in range(4)])
