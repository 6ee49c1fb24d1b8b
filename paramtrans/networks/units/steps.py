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
    """Ever smaller networks: each time the step that costs the least error for what it saves.

    Args:
        steps: Of each block, in the order of what they save.

    Yields:
        For each block the number of its step, first that of all blocks as they are.
    """
    positions = [0] * len(steps)
    while True:
        yield list(positions)
        rates = [
            (
                max(0.0, block_steps[later].error - block_steps[positions[number]].error)
                / (block_steps[later].saved - block_steps[positions[number]].saved),
                number,
                later,
            )
            for number, block_steps in enumerate(steps)
            for later in range(positions[number] + 1, len(block_steps))
            if block_steps[later].saved > block_steps[positions[number]].saved
        ]
        if not rates:
            return
        _, block, step = min(rates)
        positions[block] = step


def cheapest(steps: Sequence[Sequence[Step]], over: int) -> list[Step] | None:
    """The step of each block with which enough is saved at little error.

    Args:
        steps: Of each block, in the order of what they save.
        over: How much has to be saved at least, in the unit of `Step.saved`.

    Returns:
        One step of each block; None where even the smallest save too little.
    """
    for positions in way_down(steps):
        chosen = [block_steps[position] for block_steps, position in zip(steps, positions, strict=True)]
        if sum(step.saved for step in chosen) >= over:
            return chosen
    return None
