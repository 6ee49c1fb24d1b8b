"""Which hidden units stay: those without which the error of the layers that read them would grow most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from paramtrans.ops.directions import main_directions
from paramtrans.ops.least_squares import GramMatrices, factor
from paramtrans.ops.symmetry import values_of

RIDGE = 1e-4
"""Relative to the mean square of each value; what two nearly equal units differ in is noise."""
VALUES_FOR_ONE = 1024
"""Where a reader has more values than this, several units go at once: choosing costs no more than solving then."""
UNITS_FOR_ONE = 100
"""Of more units than this, one in a hundred goes at once."""
MOST_VALUES = 1536
"""Values that units of a network are chosen by."""
COMPACTED = 0.8
"""Units that are gone are left in their places until this share remains: copying them away costs more than they do."""


def by_elimination(
    matrices: GramMatrices | Sequence[GramMatrices], units: int, keep: int, cells: Tensor | None = None
) -> Tensor:
    """The units left when the one of least importance goes, again and again.

    A unit's importance is how much the squared error grows when the reader is solved for anew without it: backward
    elimination by the measure of Optimal Brain Surgeon (Hassibi and Stork, 1992, Eq. 5), for a group of weights.

    Args:
        matrices: Of values unit by unit, as many for each. Those of several readers count by their share of what each
            reader gives.
        units: How many units there are.
        keep: How many stay.
        cells: Where as many units have to stay in each cell, the cell of each, `[units]`.

    Returns:
        Numbers of units, `[models, keep]`, in order.
    """
    readers = [matrices] if isinstance(matrices, GramMatrices) else list(matrices)
    count = len(readers[0].gram)
    equations = [_equations(reader, units, len(readers) > 1) for reader in readers]
    device = equations[0].inverse.device
    units_left = torch.arange(units, device=device).expand(count, -1)
    alive = torch.ones_like(units_left, dtype=torch.bool)
    width = max(reader.size for reader in equations)
    remaining = units
    while remaining > keep:
        if remaining <= COMPACTED * units_left.shape[1]:
            units_left, alive = _compact(units_left, alive, equations)
        importance = torch.stack([reader.importance() for reader in equations]).sum(0)
        importance = torch.where(alive, importance, torch.inf)
        count_removed = min(remaining - keep, max(1, remaining * width // VALUES_FOR_ONE, remaining // UNITS_FOR_ONE))
        removed = _least(importance, count_removed, None if cells is None else cells.to(device)[units_left])
        alive = alive.scatter(1, removed, False)
        remaining -= removed.shape[1]
        for reader in equations:
            _take_out(reader.inverse, reader.weights, values_of(removed, reader.size))
    return _compact(units_left, alive, equations)[0]


@dataclass
class _Equations:
    """The solution for one reader without the units that are gone."""

    inverse: Tensor
    weights: Tensor
    size: int
    """Values of a unit."""
    share: Tensor
    """What errors are divided by, `[models, 1]`."""

    def importance(self) -> Tensor:
        """How much the squared error grows without each unit: `[models, units]`."""
        if self.size == 1:  # as below, without a solver's start for each number
            lost = self.weights.square().sum(2) / self.inverse.diagonal(dim1=1, dim2=2)
        else:
            per_unit = self.weights.view(len(self.weights), -1, self.size, self.weights.shape[2])
            solved = torch.linalg.solve(_diagonal_blocks(self.inverse, self.size), per_unit @ per_unit.mT)
            lost = solved.diagonal(dim1=-2, dim2=-1).sum(-1)
        shared: Tensor = lost / self.share
        return shared


def _equations(matrices: GramMatrices, units: int, several: bool) -> _Equations:
    inverse = torch.cholesky_inverse(factor(matrices.gram, RIDGE * matrices.penalty()))
    power = matrices.power.sum(1, keepdim=True).clamp_min(1e-30)
    share = power if several else torch.ones_like(power)
    return _Equations(inverse, inverse @ matrices.cross, matrices.gram.shape[1] // units, share)


def _least(importance: Tensor, count: int, cells: Tensor | None) -> Tensor:
    """The units of least importance `[models, count]`; with cells, one of each cell (one model alone)."""
    order = importance.argsort(dim=1)
    if cells is None:
        return order[:, :count]
    cells_in_order = cells[0][order[0]]
    per_cell = max(1, count // len(cells.unique()))
    return torch.cat([order[0][cells_in_order == cell][:per_cell] for cell in cells.unique()])[None]


def reduced(matrices: GramMatrices, weight: Tensor, units: int, limit: int = MOST_VALUES) -> GramMatrices:
    """Gram matrices of fewer values of each unit, so that choosing does not cost more than solving.

    The values that stay are combinations of a unit's values that the reader's weights make most of: the first
    eigenvectors of W Wᵀ of each unit.

    Args:
        matrices: Of values unit by unit, as many for each.
        weight: The reader's weights W, `[values, outputs]`.
        units: How many units there are.
        limit: Values in all, at most.
    """
    size = len(weight) // units
    rank = max(1, limit // units)
    if rank >= size:
        return matrices
    return matrices.combined(main_directions(weight, units, rank))


def by_contribution(matrices: GramMatrices, weights: Tensor, units: int, keep: int) -> Tensor:
    """The units whose contributions, value times weight, have the largest mean square, each alone.

    Args:
        matrices: Of values unit by unit, as many for each.
        weights: What the reader multiplies them by, `[models, values, outputs]`.
        units: How many units there are.
        keep: How many stay.

    Returns:
        Numbers of units, `[models, keep]`, in order.
    """
    square = matrices.gram.diagonal(dim1=1, dim2=2) * weights.square().sum(2)
    share = square.view(len(square), units, -1).sum(2)
    return share.argsort(dim=1, descending=True, stable=True)[:, :keep].sort(dim=1).values


def _take_out(inverse: Tensor, weights: Tensor, removed: Tensor) -> None:
    """Make inverse and solution those of the equations without the values `gone` `[models, n]`, in place.

    What stands at these values is then of no meaning, but for ones on the diagonal, so that it can be solved with.
    """
    columns = inverse.gather(2, removed[:, None].expand(-1, inverse.shape[1], -1))
    removed_block = _rows(columns, removed)
    solved = torch.linalg.solve(removed_block, torch.cat([columns.mT, _rows(weights, removed)], dim=2))
    values = inverse.shape[1]
    inverse.baddbmm_(columns, solved[..., :values], alpha=-1)
    weights.baddbmm_(columns, solved[..., values:], alpha=-1)
    inverse.scatter_(1, removed[..., None].expand(-1, -1, values), 0)
    inverse.diagonal(dim1=1, dim2=2).scatter_(1, removed, 1)


def _compact(units_left: Tensor, alive: Tensor, equations: list[_Equations]) -> tuple[Tensor, Tensor]:
    """Units, flags and equations without the units that are gone."""
    stays = (~alive).long().argsort(dim=1, stable=True)[:, : int(alive[0].sum())]
    for reader in equations:
        values = values_of(stays, reader.size)
        reader.inverse = _rows(reader.inverse, values).gather(2, values[:, None].expand(-1, values.shape[1], -1))
        reader.weights = _rows(reader.weights, values)
    return units_left.gather(1, stays), alive.gather(1, stays)


def _rows(matrix: Tensor, index: Tensor) -> Tensor:
    """The rows at `index` `[models, n]` of each matrix."""
    return matrix.gather(1, index[..., None].expand(-1, -1, matrix.shape[2]))


def _diagonal_blocks(matrix: Tensor, size: int) -> Tensor:
    """`[models, n, n]` → `[models, n / size, size, size]`."""
    units = matrix.shape[1] // size
    return matrix.reshape(len(matrix), units, size, units, size).diagonal(dim1=1, dim2=3).movedim(-1, 1)
