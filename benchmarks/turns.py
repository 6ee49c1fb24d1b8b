"""Contestants measured in turns, so that a busy machine is busy for all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

Turn = Callable[[], float]
"""Does some work; returns its rate, amount per second of wall-clock time."""


@dataclass(frozen=True)
class Row:
    """One line of the table: higher is better, medians over all rounds."""

    name: str
    against: str
    ratio: float
    spread: float
    """The largest ratio of any round less the smallest."""
    unit: str
    ours: float
    theirs: float
    device: str = ""
    """The machine, in words; the program that measures sets it."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def rate(amount: float, work: Callable[[], object]) -> float:
    """Amount per second of wall-clock time, all that a GPU was given included."""
    _wait()
    started = time.perf_counter()
    work()
    _wait()
    return amount / (time.perf_counter() - started)


def _wait() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def take_turns(contestants: Mapping[str, Turn], rounds: int) -> dict[str, list[float]]:
    """The rates of every contestant in every round; one round more comes first and does not count."""
    rates: dict[str, list[float]] = {name: [] for name in contestants}
    names = list(contestants)
    for number in range(rounds + 1):
        for name in names if number % 2 else reversed(names):
            result = contestants[name]()
            if number > 0:
                rates[name].append(result)
    return rates


def row(name: str, against: str, unit: str, ours: list[float], theirs: list[float]) -> Row:
    """Two contestants' rates of the same rounds, compared."""
    ratios = [our_time / their_time for our_time, their_time in zip(ours, theirs, strict=True)]
    return Row(
        name,
        against,
        round(statistics.median(ratios), 3),
        round(max(ratios) - min(ratios), 3),
        unit,
        float(f"{statistics.median(ours):.4g}"),
        float(f"{statistics.median(theirs):.4g}"),
    )
