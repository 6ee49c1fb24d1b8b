"""Widths that blocks or groups of units may have, with what each saves and costs, and the cheapest way down."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """One width that a block or a group of units may have."""

    sizes: Mapping[str, int]
    saved: int
    """Parameters, or operations, that it saves."""
    error: float
    """Squared error of the network's outputs, relative to their power, with this block alone at this width."""


def way_down(steps: Sequence[Sequence[Step]]) -> Iterator[list[int]]:
    """Numbers of the steps of each block, from the first of all to ever smaller ones: always the next that costs least
    error for what it saves. Steps of a block stand in the order of what they save."""
    at = [0] * len(steps)
    while True:
        yield list(at)
        rates = [
            (max(0.0, own[j].error - own[at[b]].error) / (own[j].saved - own[at[b]].saved), b, j)
            for b, own in enumerate(steps)
            for j in range(at[b] + 1, len(own))
            if own[j].saved > own[at[b]].saved
        ]
        if not rates:
            return
        _, block, step = min(rates)
        at[block] = step


def cheapest(steps: Sequence[Sequence[Step]], over: int) -> list[Step] | None:
    """One step of each block, that save at least `over` parameters; None where even the smallest of all save too
    little."""
    for at in way_down(steps):
        taken = [own[i] for own, i in zip(steps, at, strict=True)]
        if sum(step.saved for step in taken) >= over:
            return taken
    return None
