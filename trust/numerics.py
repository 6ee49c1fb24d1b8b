"""Numbers: what diverges reaches no other host; nothing depends on who else is in the stack."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from paramtrans import config
from paramtrans.api import modules
from paramtrans.api.stacking import Params
from paramtrans.builder import Builder
from paramtrans.config import HostTraining
from paramtrans.errors import TrainingError
from paramtrans.evaluation.comparison import check_blocks
from paramtrans.plugins import plugins
from paramtrans.zoo import host_training
from trust.checks import Count, Setting
from trust.runs import CONFIG, PLUGIN

TRAINING = HostTraining(steps=4, batch_size=16, lr=0.05)
BLOCKS = {
    "basic_block": "{name='basic_block', channels=4}",
    "conv": "{name='conv', channels=4, hidden=2}",
    "mlp": "{name='mlp', channels=4, hidden=3}",
    "attention": "{name='attention', channels=4}",
}
TOLERANCE = 1e-4
"""How far a host may be from itself in a stack of another size, relative to its largest value (docs/trust.md)."""


def divergence_stays_alone(setting: Setting, count: Count) -> None:
    """One host of a stack begins with NaN or infinity; all others must end with the bits they have without it."""
    random = setting.random
    for trial in range(setting.trials):
        name = list(BLOCKS)[trial % len(BLOCKS)]
        builder, seeds = (
            _builder(source=BLOCKS[name]),
            list(range(100 * trial, 100 * trial + random.choice([2, 3, 16, 17]))),
        )
        good = host_training.train_hosts(builder.task, builder.source, TRAINING, seeds)
        bad = random.randrange(len(seeds))
        value = random.choice([float("nan"), float("inf"), -float("inf"), 3e38])
        with _poisoned(bad, value):
            mixed = host_training.train_hosts(builder.task, builder.source, TRAINING, seeds)
        others = [i for i in range(len(seeds)) if i != bad]
        changed = [n for n, t in good.items() if not torch.equal(_bits(t[others]), _bits(mixed[n][others]))]
        problems = [f"changed {changed}"] if changed else []
        if all(t[bad].isfinite().all() for t in mixed.values()) and value != 3e38:
            problems.append("the poison did nothing")
        count.add(f"{name}, host {bad} of {len(seeds)} with {value}", problems)


def stacks_of_any_size(setting: Setting, count: Count) -> None:
    """A host alone, and the same host in stacks of other sizes."""
    largest = 0.0
    for trial in range(setting.trials):
        name, size = list(BLOCKS)[trial % len(BLOCKS)], (2, 3, 5, 16, 17, 33)[trial // len(BLOCKS) % 6]
        builder, seeds = _builder(source=BLOCKS[name]), list(range(trial * 50, trial * 50 + size))
        whole = host_training.train_hosts(builder.task, builder.source, TRAINING, seeds)
        at = setting.random.randrange(size)
        alone = host_training.train_hosts(builder.task, builder.source, TRAINING, [seeds[at]])
        far = {n: float((whole[n][at] - t[0]).abs().max() / t.abs().max().clamp_min(1e-3)) for n, t in alone.items()}
        largest = max(largest, *far.values())
        count.add(f"{name}, {size} hosts", [f"{n} differs by {d:.1e}" for n, d in far.items() if d > TOLERANCE])
    count.notes.append(f"largest relative difference {largest:.1e}")


def translators_must_be_finite(setting: Setting, count: Count) -> None:
    """A translator whose weights left the finite numbers is stopped before its blocks are used."""
    random = setting.random
    for trial in range(setting.trials):
        builder = _builder()
        translator: Any = builder.translator(trial)
        state = translator.state_dict()
        tensor = state[random.choice([name for name, t in state.items() if t.numel()])]
        tensor.view(-1)[random.randrange(tensor.numel())] = random.choice([float("nan"), float("inf")])
        blocks = translator.translate(modules.initial(builder.source.module, [1, 2]))
        finite = all(t.isfinite().all() for t in blocks.values())
        count.add(
            f"weights of translator {trial}",
            _stopped(lambda b=blocks, p=builder: check_blocks(b, p.target.spec, "translator"), finite),
        )


def _stopped(do: Callable[[], object], finite: bool) -> list[str]:
    try:
        do()
    except TrainingError as error:
        return [] if "not finite" in str(error) else [str(error)]
    return [] if finite else ["went through"]


@contextmanager
def _poisoned(host: int, value: float) -> Iterator[None]:
    """While open, one host of each new stack begins with `value` somewhere."""
    plain = modules.initial

    def initial(*args: Any) -> Params:
        params = plain(*args)
        next(iter(params.values()))[host].view(-1)[0] = value
        return params

    modules.initial = initial
    try:
        yield
    finally:
        modules.initial = plain


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().view(torch.uint8)


def _builder(**tables: str) -> Builder:
    plugins().load_file(PLUGIN)
    settings = ["run.device=cpu", *(f"{key}={value}" for key, value in tables.items())]
    builder = Builder(config.load(CONFIG, plugins().registry(), settings), plugins().registry())
    builder.task.prepare(CONFIG)
    return builder
