"""What these examples compare, and what they measure in one form: rows of `docs/results/real.json`."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import torch
from scipy.stats import t as student
from torch import Tensor, nn

Method: TypeAlias = "dict[str, Any]"
"""What `paramtrans.translate` is called with, beside the network, the inputs and the ratio."""
CALIBRATED: dict[str, Method] = {
    "refit": {},
    "least squares on the strongest units": {"options": {"units": "norm", "ridge": 1e-3}},
    "activation-weighted pruning, means corrected": {"options": {"units": "activation", "ridge": 1e9}},
}
"""Methods that look at unlabelled inputs."""
ALONE: dict[str, Method] = {"magnitude pruning": {"translator": "prune"}, "folding": {"translator": "merge"}}
"""Methods that look at the parameters alone."""


def matched(batch: int) -> dict[str, Method]:
    """The refit and, from there, feature matching on `batch` examples at a time."""
    return {"refit, then feature matching": {"then": {"matching": {"steps": 300, "lr": 1e-3, "batch": batch}}}}


@torch.no_grad()
def milliseconds(networks: Sequence[nn.Module], inputs: Tensor, repeats: int = 30) -> list[float]:
    """Time of one run of each, side by side: they take turns, and the least of several runs counts, so that what else
    the machine does counts as little as may be."""
    times = [[0.0] * repeats for _ in networks]
    for turn in range(repeats):
        for network, waits in zip(networks, times, strict=True):
            started = time.perf_counter()
            network(inputs)
            waits[turn] = time.perf_counter() - started
    return [1000 * min(waits) for waits in times]


def peak_mib() -> float:
    """Largest memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@dataclass(frozen=True)
class Measured:
    """One number, and what it is of."""

    model: str
    method: str
    inputs: int
    """Images, sentences or tokens, without labels, that the method looked at."""
    width: float
    metric: str
    value: float
    ci95: tuple[float, float] | None
    parameters: int
    flops: int
    """For one example; a multiply-add is two."""
    seconds: float | None
    """Of processor time, for translating one network."""
    original: float | None = None
    """The same of the network that was translated."""
    held_out: int | None = None
    """Inputs that it was measured on, none of which was seen before."""
    draws: int = 1
    """Calibration sets, no two with an input in both; of several, value and interval are over them."""
    peak_mib: float = field(default_factory=peak_mib)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def append(path: Path, rows: Sequence[Measured]) -> None:
    """Put rows behind those of a file, in the place of earlier ones of the same model, method, size and metric."""
    old = json.loads(path.read_text()) if path.exists() else []
    key = ("model", "method", "inputs", "width", "metric")
    new = [row.as_dict() for row in rows]
    replaced = {tuple(row[name] for name in key) for row in new}
    kept = [row for row in old if tuple(row[name] for name in key) not in replaced]
    path.write_text(json.dumps([*kept, *new], indent=1, ensure_ascii=False) + "\n")


T = TypeVar("T", bound=Sequence[Any] | Tensor)


def disjoint(pool: T, size: int, draws: int) -> list[T]:
    """As many parts of a pool, each of `size`, one behind the other."""
    if len(pool) < size * draws:
        raise SystemExit(f"--draws {draws}: takes {size * draws} inputs, and there are {len(pool)}; give fewer")
    return [pool[draw * size : (draw + 1) * size] for draw in range(draws)]  # type: ignore[misc]


def over_draws(values: Sequence[Tensor | Sequence[float]]) -> tuple[float, tuple[float, float] | None]:
    """Mean and 95% t-interval: over what was measured on where there is one draw, else over the means of the draws."""
    if len(values) == 1:
        return interval(values[0])
    return interval([interval(of_draw)[0] for of_draw in values])


def interval(values: Tensor | Sequence[float]) -> tuple[float, tuple[float, float] | None]:
    """Mean and 95% t-interval."""
    values = torch.as_tensor(values, dtype=torch.float64)
    mean, n = values.mean().item(), len(values)
    if n < 2:
        return mean, None
    half = float(student.ppf(0.975, n - 1)) * values.std().item() / n**0.5
    return mean, (mean - half, mean + half)
