"""Steps 1 and 2 of the zoo against the other ways to train as many hosts, and against the machine's peak."""

from __future__ import annotations

import torch

from benchmarks.processes import OneProcess, Processes
from benchmarks.published import Published
from benchmarks.setting import BATCH, Setting
from benchmarks.turns import Row, Turn, rate, row, take_turns
from benchmarks.vmapped import Vmapped
from paramtrans.evaluation.costs import count
from paramtrans.zoo import host_training

STACK, STACK_ON_GPU = 16, 256
"""Hosts trained at once: the default of `zoo.shard`, and one that fills a GPU."""
MATRIX, MATRIX_ON_GPU = 2048, 8192


def rows(setting: Setting) -> list[Row]:
    """Five rows from one series of turns. Ours are measured as whole shards, building the hosts included."""
    builder, size = setting.builder, setting.size
    stack, seeds = (STACK_ON_GPU if setting.on_gpu else STACK), setting.seeds
    where = builder.device
    hosts = host_training.train_hosts(builder.task, builder.source, setting.training, seeds(stack), where)

    def step1() -> object:
        return host_training.train_hosts(builder.task, builder.source, setting.training, seeds(stack), where)

    def step2() -> object:
        return host_training.train_targets(builder.task, builder.target, hosts, setting.training, seeds(stack), where)

    amount = stack * setting.own_steps * BATCH
    published, alone = Published(setting), (OneProcess if setting.on_gpu else Processes)(setting)
    with alone:
        contestants: dict[str, Turn] = {"step 1": lambda: rate(amount, step1), "step 2": lambda: rate(amount, step2)}
        contestants |= {"published": published, "alone": alone, "vmap": Vmapped(setting, stack)}
        measured = take_turns(contestants | {"peak": lambda: _peak(setting)}, size.rounds)
    flops = [speed * _flops(setting) / 1e9 for speed in measured["step 1"]]
    workers = f"one model at a time, DataLoader with torchvision transforms, {published.workers} workers (the fastest)"
    unit, first = "model-images/s", measured["step 1"]
    return [
        row("zoo step 1", workers, unit, first, measured["published"]),
        row(
            "zoo step 1",
            "one model at a time, tensors " + ("on the GPU" if setting.on_gpu else "in memory, one process per core"),
            unit,
            first,
            measured["alone"],
        ),
        row("zoo step 1", f"torch.func.vmap over the same {stack} models", unit, first, measured["vmap"]),
        row("zoo step 1, arithmetic", "the machine's fp32 matrix product", "GFLOP/s", flops, measured["peak"]),
        row("zoo step 2", "zoo step 1", unit, measured["step 2"], first),
    ]


def _flops(setting: Setting) -> float:
    """Floating-point operations of one training step for one image, as PyTorch counts them."""
    host = setting.host()
    inputs = setting.builder.task.to_input(setting.builder.task.split("train").inputs[:BATCH].to(setting.device))
    return count(lambda: host(inputs).sum().backward()) / BATCH


def _peak(setting: Setting) -> float:
    """GFLOP/s of a large matrix product in float32, without reduced precision."""
    size = MATRIX_ON_GPU if setting.on_gpu else MATRIX
    assert not torch.backends.cuda.matmul.allow_tf32
    a, b = (torch.rand(size, size, device=setting.device) for _ in range(2))
    return rate(4 * 2 * size**3 / 1e9, lambda: [a @ b for _ in range(4)])
