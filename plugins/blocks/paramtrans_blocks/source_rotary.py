"""Rotary positions that queries or keys of a part have: read off how features that are the same everywhere turn."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from paramtrans_blocks.positions import pairs, rotated

TOLERANCE = 1e-4
"""Largest difference between values and what they are taken for, relative to the largest value."""


@dataclass(frozen=True)
class Rotary:
    """How queries and keys turn with positions."""

    frequencies: tuple[float, ...]
    """Radians by which each pair turns from a position to the next."""
    neighbours: bool = False
    """Whether the values of a pair stand beside each other; else half of the pairs' values apart."""

    def apply(self, values: Tensor) -> Tensor:
        """Values `[..., positions, width]` that do not turn, turned."""
        return rotated(values, self.frequencies, self.neighbours)

    def undone(self, values: Tensor) -> Tensor:
        """Values `[..., positions, width]` with their turn taken back."""
        return rotated(values, [-frequency for frequency in self.frequencies], self.neighbours)


def rotary_of(values: Tensor) -> Rotary | None:
    """The rotary positions that values have.

    Args:
        values: Queries or keys of features that are the same at all positions, `[n, heads, positions, width]`.

    Returns:
        None where they change from position to position in another way.
    """
    first = values[:, :, :1]
    if _alike(values, first.expand_as(values)):
        return Rotary(())
    for turning in range(values.shape[-1] // 2 * 2, 0, -2):
        if not _alike(values[..., turning:], first[..., turning:].expand_as(values[..., turning:])):
            return None  # those that stay are none, with fewer pairs neither
        for neighbours in (False, True):
            rotary = Rotary(_frequencies(values[..., :turning], neighbours), neighbours)
            if _alike(rotary.apply(first.expand_as(values)), values):
                return rotary
    return None


def _frequencies(values: Tensor, neighbours: bool) -> tuple[float, ...]:
    """Radians a position of each pair: the first step says roughly, later positions more and more exactly."""
    turned = torch.complex(*pairs(values.double(), neighbours))  # [n, heads, positions, pairs]
    phases = (turned * turned[:, :, :1].conj()).sum((0, 1)).angle()
    positions = len(phases)
    frequencies = phases[1]
    for position in [*(2**power for power in range(1, positions.bit_length()) if 2**power < positions), positions - 1]:
        turns = ((position * frequencies - phases[position]) / (2 * math.pi)).round()
        frequencies = (phases[position] + 2 * math.pi * turns) / position
    return tuple(frequencies.tolist())


def _alike(values: Tensor, expected: Tensor) -> bool:
    if not values.numel():
        return True
    return bool((values - expected).abs().max() <= TOLERANCE * expected.abs().max().clamp_min(1e-6))
