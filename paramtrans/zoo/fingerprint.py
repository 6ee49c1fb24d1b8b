"""What the code behind a zoo computes, in a few numbers, so that hosts are not reused where it computes something else.

A recipe says how components are named and what tensors they have. Their code and data may change all the same.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from paramtrans.builder import Builder
from paramtrans.errors import Damaged

KEY = "made_of"
"""Where a record of a shard has it."""
EXAMPLES = 4
"""Of each split, the first."""
SPLITS = ("train", "holdout", "test")
TOLERANCE = 1e-3
"""By how much numbers may differ, relative to the largest: processors and versions of torch round differently."""

Numbers = list[float]

logger = logging.getLogger(__name__)
_known: WeakKeyDictionary[Builder, dict[int, dict[str, Any]]] = WeakKeyDictionary()


def of(builder: Builder, step: int) -> dict[str, Any]:
    """By part, who provides what a step uses, and numbers of what it computes.

    What cannot be computed, such as the examples of data that are not there, is left out.
    """
    by_step = _known.setdefault(builder, {})
    if step not in by_step:
        by_step[step] = {"providers": builder.providers(step), "computes": computed(builder, step)}
    return by_step[step]


def computed(builder: Builder, step: int, data: bool = True) -> dict[str, Numbers]:
    """By part, numbers of what the code of a step computes; without `data`, of the blocks alone."""
    task = builder.task
    features, left = _noise(EXAMPLES, *task.slot.shape), _noise(EXAMPLES, *task.leaving().shape)
    computations: dict[str, Callable[[], list[Tensor]]] = {"source": lambda: [_run(builder.source.module, features)]}
    if step == 2:
        computations = {"target": lambda: [_run(builder.target.module, features)]}
    computations["latter"] = lambda: [_run(task.latter, left)]
    if data:
        computations |= {name: lambda name=name: _examples(builder, name) for name in SPLITS}  # type: ignore[misc]
        computations["augment"] = lambda: [_augmented(builder)]
    fingerprints = {}
    for name, compute in computations.items():
        try:
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                fingerprints[name] = [number for tensor in compute() for number in _numbers(tensor)]
        except Exception as error:  # whatever a component does where it is not used as in a run
            logger.debug("no fingerprint of %s: %s", name, error)
    return fingerprints


def of_blocks(builder: Builder) -> dict[str, Any]:
    """The same of both steps, of what needs no data, so that a finished run answers without them."""
    return {"computes": computed(builder, 1, data=False) | computed(builder, 2, data=False)}


def difference(then: Any, now: Mapping[str, Any]) -> str | None:
    """What computes something else now than then, in words; None where all that is known of both agrees."""
    then = then if isinstance(then, dict) else {}
    before, here = then.get("computes", {}), now.get("computes", {})
    changed = [part for part in here if part in before and not _same(before[part], here[part])]
    if not changed:
        return None
    return f"{', '.join(changed)} computes something else now{_versions(then, now)}"


def newer(then: Any, now: Mapping[str, Any]) -> str | None:
    """Which providers have another version now, in words; None where none has."""
    return _versions(then if isinstance(then, dict) else {}, now).strip(" ()") or None


def _versions(then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    before, here = then.get("providers", {}), now.get("providers", {})
    changes = {f"{before[part]} then, {here[part]} now" for part in here if before.get(part, here[part]) != here[part]}
    return f" ({'; '.join(sorted(changes))})" if changes else ""


def _same(first: Numbers, second: Numbers) -> bool:
    if len(first) != len(second):
        return False
    largest = max((abs(number) for number in (*first, *second)), default=0.0)
    return all(
        math.isclose(a, b, rel_tol=TOLERANCE, abs_tol=TOLERANCE * largest) for a, b in zip(first, second, strict=True)
    )


def _noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def _run(build: Callable[[], nn.Module], inputs: Tensor) -> Tensor:
    torch.manual_seed(0)
    outputs: Tensor = build().eval()(inputs)
    return outputs


def _examples(builder: Builder, name: str) -> list[Tensor]:
    """The first examples of a split as a fresh host without its block sees them, what it makes of them, their loss."""
    task, examples = builder.task, builder.task.split(name).first(EXAMPLES)
    inputs = task.to_input(examples.inputs)
    entered = _run(task.former, inputs)
    passed_on = task.leaving() == task.slot
    outputs = _run(task.latter, entered if passed_on else _noise(len(inputs), *task.leaving().shape))
    losses = task.loss(outputs[None], examples.labels[None])
    return [inputs, entered, examples.labels, losses, builder.metric.measure(outputs[None], examples.labels)]


def _augmented(builder: Builder) -> Tensor:
    raw = builder.task.split("train").first(EXAMPLES).inputs
    augmented: Tensor = builder.task.augment(raw.clone(), torch.Generator().manual_seed(0))
    return augmented


def _numbers(tensor: Tensor) -> Numbers:
    """A few numbers that hardly two tensors share: mean, size, and weighted sums."""
    values = tensor.detach().double().flatten()
    if not len(values) or not values.isfinite().all():
        return [float(len(values))]
    weights = torch.linspace(-1, 1, len(values), dtype=torch.float64)
    statistics = [
        values.mean(),
        values.square().mean().sqrt(),
        (values * weights).mean(),
        (values * weights.square()).mean(),
    ]
    return [float(f"{float(number):.6g}") for number in statistics]


def check(recorded: Any, now: dict[str, Any], path: Path, warned: set[str]) -> None:
    """Raise `Damaged` for a file that other code or data made; one of another version that computes the same is used.

    Args:
        recorded: What `of` gave when the file was made.
        now: What it gives now.
        path: The file.
        warned: Versions that were logged before; others are logged, and added.
    """
    if change := difference(recorded, now):
        raise Damaged(f"{path}: was made by other code or data: {change}")
    if (version := newer(recorded, now)) and version not in warned:
        warned.add(version)
        logger.warning("%s: made by %s, which computes the same on what was tried; it is used", path, version)
