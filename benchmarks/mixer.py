"""A training step of the Mixer translator against the same module in a bare PyTorch loop."""

from __future__ import annotations

from pathlib import Path

import torch

from benchmarks.setting import Setting
from benchmarks.turns import Row, rate, row, take_turns
from paramtrans.training import Trainer

PAIRS, PAIRS_ON_GPU = 64, 4096
"""In a step: the paper's 4,096 take a CPU half a minute."""


def rows(setting: Setting) -> list[Row]:
    """The paper's Mixer-Small, parameter MSE, Adam, the same pairs."""
    parts, count = setting.parts, max(1, setting.size.steps // 10)
    pairs = PAIRS_ON_GPU if setting.on_gpu else PAIRS
    hosts = setting.hosts(pairs)
    trainer = Trainer(parts, parts.translator(0), hosts, hosts, Path())
    bare = parts.translator(0).to(parts.device).train()
    optimizer = torch.optim.Adam(bare.parameters(), 1e-3)
    reading, target = parts.source.read(hosts.source), hosts.target
    everyone, generator = list(range(pairs)), torch.Generator().manual_seed(0)

    def ours() -> None:
        for _ in range(count):
            trainer.step(everyone, generator)

    def theirs() -> None:
        for _ in range(count):
            predicted = bare(reading)
            losses = [torch.nn.functional.mse_loss(predicted[name], target[name]) for name in target]
            optimizer.zero_grad()
            torch.stack(losses).mean().backward()
            optimizer.step()

    trainer.translator.train()
    amount = count * pairs
    found = take_turns(
        {"ours": lambda: rate(amount, ours), "theirs": lambda: rate(amount, theirs)}, setting.size.rounds
    )
    against = "the same module in a bare PyTorch loop"
    return [row(f"Mixer training step, {pairs:,} pairs", against, "pairs/s", found["ours"], found["theirs"])]
