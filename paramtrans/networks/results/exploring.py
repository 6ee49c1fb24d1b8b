"""A network translated at several widths, to choose one: what each costs, what each loses, and where the knee is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from paramtrans.networks.losses import Losses
from paramtrans.utils.distributed import ALONE, ProcessGroup

Make = Callable[[float], nn.Module]


@dataclass(frozen=True)
class Point:
    """One width."""

    ratio: float
    """Share of the hidden units that stay."""
    losses: Losses

    @property
    def size(self) -> float:
        """Parameters, as a share of the original's."""
        return self.losses.after.parameters / max(1, self.losses.before.parameters)

    @property
    def latency(self) -> float | None:
        """Time of one example, as a share of the original's."""
        before, after = self.losses.before.latency_ms, self.losses.after.latency_ms
        return after / before if before and after else None


def explore(
    make: Make, measure: Callable[[nn.Module], Losses], ratios: Iterable[float], processes: ProcessGroup = ALONE
) -> list[Point]:
    """A point for each width, the widest first.

    Args:
        make: The smaller network, for a share of the hidden units that stay.
        measure: What it lost.
        ratios: The shares.
        processes: Those that call this with the same; each makes some of the points.
    """
    shares = sorted(set(ratios), reverse=True)
    points = [Point(ratio, measure(make(ratio))) for ratio in shares[processes.rank :: processes.size]]
    if processes.size == 1:
        return points
    texts = [document.encode() for document in (Losses.model_dump_json(point.losses) for point in points)]
    lengths = processes.join(torch.tensor([len(text) for text in texts], dtype=torch.long))
    joined = bytes(processes.join(torch.tensor([*b"".join(texts)], dtype=torch.uint8)).tolist())
    ends = lengths.cumsum(0).tolist()
    losses = [Losses.model_validate_json(joined[end - n : end]) for end, n in zip(ends, lengths.tolist(), strict=True)]
    made = [ratio for rank in range(processes.size) for ratio in shares[rank :: processes.size]]
    return sorted(map(Point, made, losses), key=lambda point: -point.ratio)


def loss_of(losses: Losses) -> tuple[str, float]:
    """The loss that widths are compared by, smaller is better.

    Agreement of predictions is not used: on few inputs too few predictions change to tell one width from the next.

    Returns:
        Its name and its value.
    """
    if losses.perplexity is not None:
        return "perplexity, after ÷ before", losses.perplexity[1] / losses.perplexity[0]
    return "relative error of the output", next(iter(losses.outputs.values()), float("nan"))


def knee(sizes: Sequence[float], losses: Sequence[float]) -> int | None:
    """The point after which making a network smaller costs most: the one farthest below the line between both ends.

    Satopää, Albrecht, Irwin and Raghavan, "Finding a 'Kneedle' in a Haystack" (2011), section III, without smoothing.

    Args:
        sizes: Of the points, in falling order.
        losses: Of the points.

    Returns:
        The number of the point, or None with fewer than three points, or where no point is below that line.
    """
    width, height = sizes[0] - sizes[-1], losses[-1] - losses[0]
    if len(sizes) < 3 or width <= 0 or not height > 0:
        return None
    below = [(sizes[0] - size) / width - (loss - losses[0]) / height for size, loss in zip(sizes, losses, strict=True)]
    best = max(range(len(below)), key=lambda point: below[point])
    return best if below[best] > 1e-9 else None
