"""How much a row of a layer's equations may count: a few positions with enormous outputs would else decide alone.

Language models write outputs thousands of times the usual into some positions, such as the first one ("massive
activations", Sun et al., arXiv 2402.17762). What a normalisation reads behind them does not grow with that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from paramtrans.utils.distributed import ALONE, ProcessGroup

MOST = 16.0
"""Squared norm of what a layer gives for a row, or of the sum that this goes into, from which on the row counts no
more, times the ordinary rows' mean."""
ORDINARY = 0.9
"""Share of the rows, those of least norm, that are ordinary."""
ENOUGH = 1024
"""Rows that say what is ordinary; all, where there are fewer."""

T = TypeVar("T")


def limited(
    pieces: Iterable[T], outputs_of: Callable[[T], Tensor], processes: ProcessGroup = ALONE
) -> Iterator[tuple[T, Tensor]]:
    """Pieces of a layer's equations, each with what its rows are to be multiplied by.

    Args:
        pieces: In order; the first of them say what is ordinary.
        outputs_of: Gives what the layer of the untouched network makes of a piece's rows, `[rows, outputs]`.
        processes: Have further pieces each, those of the first before those of the second.

    Yields:
        A piece, and the factors, `[rows, 1]`: one, or less where the outputs are larger than `MOST` allows.
    """
    waiting: list[tuple[T, Tensor]] = []
    limit: Tensor | None = None
    for piece in pieces:
        waiting.append((piece, outputs_of(piece).square().sum(1, keepdim=True)))
        if limit is None and sum(len(power) for _, power in waiting) >= ENOUGH:
            limit = _limit([power for _, power in waiting], processes)
        if limit is not None:
            yield from _scaled(waiting, limit)
            waiting = []
    if waiting:
        yield from _scaled(waiting, _limit([power for _, power in waiting], processes))


def _limit(powers: Sequence[Tensor], processes: ProcessGroup) -> Tensor:
    """The largest squared norm that counts as it is, by the first pieces of all processes; infinite where ordinary rows
    give nothing at all."""
    lengths = processes.join(torch.tensor([len(power) for power in powers]))
    # As many pieces, in order, as a process that has all of them would have waited for.
    pieces = int((lengths.cumsum(0) < ENOUGH).sum()) + 1
    power = processes.join(torch.cat([*powers]))[: int(lengths[:pieces].sum())]
    ordinary = power.flatten().sort().values[: max(1, int(ORDINARY * len(power)))].mean()
    return torch.where(ordinary > 0, MOST * ordinary, torch.inf)


def _scaled(waiting: Iterable[tuple[T, Tensor]], limit: Tensor) -> Iterator[tuple[T, Tensor]]:
    for piece, power in waiting:
        yield piece, (limit / power).sqrt().clamp(max=1)
