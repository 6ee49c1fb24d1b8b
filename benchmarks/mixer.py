"""A training step of the Mixer translator against the same module in a bare PyTorch loop."""

from __future__ import annotations

from pathlib import Path

import torch

from benchmarks.setting import Setting
from benchmarks.turns import Row, rate, row, take_turns
from paramtrans.training.trainer import Trainer

PAIRS, PAIRS_ON_GPU = 64, 4096
"""In a step: the paper's 4,096 take a CPU half a minute."""


def rows(setting: Setting) -> list[Row]:
    """The paper's Mixer-Small, parameter MSE, Adam, the same pairs: as it is configured, and with `training.precision`
    bf16.

    Each turn begins with modules of its own: how fast one runs depends by some percent on where its memory lies.
    """
    builder, count = setting.builder, max(1, setting.size.steps // 10)
    pairs = min(PAIRS_ON_GPU if setting.on_gpu else PAIRS, setting.size.pairs)
    hosts = setting.hosts(pairs)
    reading, target = builder.source.read(hosts.source), hosts.target

    def ours(precision: str) -> float:
        trainer = Trainer(builder, builder.translator(0), hosts, hosts, Path())
        trainer.options = trainer.options.model_copy(update={"precision": precision})
        trainer.translator.train()
        everyone, generator = list(range(pairs)), torch.Generator().manual_seed(0)
        trainer.step(everyone, generator)
        return rate(count * pairs, lambda: [trainer.step(everyone, generator) for _ in range(count)])

    def theirs() -> float:
        bare = builder.translator(0).to(builder.device).train()
        optimizer = torch.optim.Adam(bare.parameters(), 1e-3)

        def step() -> None:
            predicted = bare(reading)
            losses = [torch.nn.functional.mse_loss(predicted[name], target[name]) for name in target]
            optimizer.zero_grad()
            torch.stack(losses).mean().backward()
            optimizer.step()

        step()
        return rate(count * pairs, lambda: [step() for _ in range(count)])

    contestants = {"fp32": lambda: ours("float32"), "bf16": lambda: ours("bf16"), "theirs": theirs}
    measured = take_turns(contestants, 2 * setting.size.rounds - 1)
    name, against = f"Mixer training step, {pairs:,} pairs", "the same module in a bare PyTorch loop, fp32"
    return [
        row(name, against, "pairs/s", measured["fp32"], measured["theirs"]),
        row(f"{name}, bf16", against, "pairs/s", measured["bf16"], measured["theirs"]),
    ]
