"""Values of several hosts as a mean with its interval, and how much of a gap is closed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from scipy.special import stdtrit
from torch import Tensor


@dataclass(frozen=True)
class Summary:
    """Values of several hosts with the 95% t-interval of their mean over hosts."""

    mean: float
    ci95: tuple[float, float]
    min: float
    max: float
    n: int

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "ci95": list(self.ci95)}


def summarise(values: Tensor) -> Summary:
    """Summary of one value for each host, with Student's t-interval of the mean.

    Args:
        values: `[hosts]`.
    """
    values = values.double()
    n, mean = len(values), values.mean().item()
    spread = float(stdtrit(n - 1, 0.975)) * values.std().item() / n**0.5 if n > 1 else float("nan")
    return Summary(mean, (mean - spread, mean + spread), values.min().item(), values.max().item(), n)


def gap_closed(means: Mapping[str, float | None], name: str, higher_is_better: bool = True) -> float | None:
    """Share of the gap from random initialisation to the trained target that a method closes.

    Args:
        means: Of a metric by method, over the same hosts.
        name: The method.
        higher_is_better: Whether more of the metric is better.

    Returns:
        0 where it is at random initialisation, 1 where it is at the trained target; None without a gap.
    """
    start, mean, end = (means.get(method) for method in ("random_init", name, "trained_target"))
    if start is None or mean is None or end is None or not all(map(math.isfinite, (start, mean, end))):
        return None
    gap = end - start
    return (mean - start) / gap if (gap > 0 if higher_is_better else gap < 0) else None


@dataclass(frozen=True)
class Estimate:
    """A share of some examples, or a difference of two, with its 95% interval."""

    value: float
    ci95: tuple[float, float]


NORMAL = 1.959964
"""Standard errors to each side that hold 95% of a normal distribution."""


def share(count: int, of: int) -> Estimate:
    """How many of some examples; the interval is Wilson's (1927)."""
    value, z2 = count / of, NORMAL**2
    middle = (value + z2 / (2 * of)) / (1 + z2 / of)
    spread = NORMAL / (1 + z2 / of) * math.sqrt(value * (1 - value) / of + z2 / (4 * of * of))
    return Estimate(value, (max(0.0, middle - spread), min(1.0, middle + spread)))


def paired_change(gained: int, lost: int, of: int) -> Estimate:
    """Change of a share of the same examples, of which some were gained and some lost; the interval is that of Bonett
    and Price (2012), equation 4: Wald's with one more of both kinds."""
    up, down = (gained + 1) / (of + 2), (lost + 1) / (of + 2)
    spread = NORMAL * math.sqrt(max(0.0, up + down - (up - down) ** 2) / (of + 2))
    return Estimate((gained - lost) / of, (max(-1.0, up - down - spread), min(1.0, up - down + spread)))
