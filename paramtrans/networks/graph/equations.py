"""The equations that a layer of a smaller network is solved for by: what it reads there, and what it should give.

It should give what the layer of the untouched network gave. Where that is added to what was computed before, as in
every residual block, the sum is to be what it was: the layer makes up for what the sum's other part has lost before.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from paramtrans.networks.forward.examples import Examples
from paramtrans.networks.graph.limits import limited
from paramtrans.networks.graph.readers import Rows
from paramtrans.ops.halves import Halves
from paramtrans.utils.distributed import ProcessGroup

ROWS_AT_ONCE = 256
"""Rows whose sums are added up in double precision together."""
LEAST_GAIN = 1e-3
"""Outputs that a BatchNorm multiplies by less, relative to the largest factor, make up for nothing."""


class Equations:
    """Rows of what a layer reads and should give, and how much the sums vary that its outputs go into."""

    def __init__(self) -> None:
        self.rows = Halves()
        self._moments: Tensor = torch.zeros(3, 1, dtype=torch.double)

    def add(self, half: int, read: Tensor, due: Tensor, sums: Tensor, scale: Tensor) -> None:
        """Further rows, and what their equations are multiplied by, `[rows, 1]`."""
        self.rows.add_rows(half, read, due, scale)
        for weights, values in zip(scale.split(ROWS_AT_ONCE), sums.split(ROWS_AT_ONCE), strict=True):
            weights, values = weights.double().square(), values.double()
            total, square = (weights * values).sum(0), (weights * values.square()).sum(0)
            moments = torch.stack([weights.sum(0).expand_as(total), total, square])
            self._moments = self._moments.to(moments) + moments

    def add_up(self, processes: ProcessGroup, device: torch.device) -> None:
        """Put the sums over the rows of all processes in place of this one's.

        Args:
            processes: Each has rows of other examples.
            device: Where they are.
        """
        is_empty = not self.rows.has_rows
        self.rows.add_up(processes, device)
        if processes.size > 1 and self.rows.has_rows:
            outputs = self.rows.halves[0].power.shape[1]
            moments = torch.zeros(3, outputs, dtype=torch.double, device=device) if is_empty else self._moments
            processes.add([moments])
            self._moments = moments

    def variance(self) -> Tensor:
        """Squared distance of the sums from their mean, over all rows: `[outputs]`."""
        count, total, square = self._moments
        variance: Tensor = (square - total.square() / count).clamp_min(0)
        return variance


def equations(
    original: Iterable[Rows], small: Iterable[Rows], examples: Examples, outputs: Tensor | None, gain: Tensor | None
) -> tuple[Equations, Equations]:
    """The equations of a layer of the smaller network: those to fit to, and those of examples kept aside.

    Args:
        original: Rows in the untouched network.
        small: The same rows in the smaller one.
        examples: Say which are kept aside, and which processes have rows of others.
        outputs: Numbers of the outputs that the layer still has; None for all.
        gain: What a BatchNorm multiplies each of these by before it is added to anything.
    """
    fit, aside = Equations(), Equations()
    pairs = zip(original, small, strict=True)
    sides = ((before, after, *_sums(before, after, outputs, gain)) for before, after in pairs)
    for (before, after, sums, due), scale in limited(sides, lambda side: side[2], examples.processes):
        is_aside = examples.aside(before.example)
        for half in range(2):
            in_half = ~is_aside & (before.example % 2 == half)
            if in_half.any():
                fit.add(half, after.read[in_half], due[in_half], sums[in_half], scale[in_half])
        if is_aside.any():
            aside.add(0, after.read[is_aside], due[is_aside], sums[is_aside], scale[is_aside])
        device = due.device
    for side in (fit, aside):
        side.add_up(examples.processes, device)
    return fit, aside


def _sums(before: Rows, after: Rows, outputs: Tensor | None, gain: Tensor | None) -> tuple[Tensor, Tensor]:
    """The sums in the untouched network, and what the smaller one's layer should give for them: `[rows, outputs]`.

    Both are in units of what the layer gives, before a BatchNorm.
    """

    def retained(tensor: Tensor) -> Tensor:
        return tensor if outputs is None else tensor[:, outputs.to(tensor.device)]

    def heard(tensor: Tensor) -> Tensor:
        if gain is None:
            return tensor
        enough = gain.abs() > LEAST_GAIN * gain.abs().max()
        return (tensor / gain.where(enough, 1)).where(enough, 0).to(tensor)

    output = retained(before.output())
    if before.added_to is None or after.added_to is None:
        return output, output
    sums = output.add_(heard(retained(before.added_to)))
    return sums, sums - heard(after.added_to)
