"""Which hidden units to keep, by what the layer that reads them could still do without the others."""

from __future__ import annotations

import torch
from torch import Tensor

from paramtrans.ops.least_squares import GramMatrices, factor
from paramtrans.ops.symmetry import values_of

RIDGE = 1e-4
"""Relative to the mean square of each value; what two nearly equal units differ in is noise."""
VALUES_FOR_ONE = 1024
"""Where a reader has more values than this, several units go at once, so that the cost stays that of its solution."""
COMPACTED = 0.8
"""Units that are gone are left in their places until this share remains: copying them away costs more than they do."""


def by_elimination(matrices: GramMatrices, units: int, keep: int) -> Tensor:
    """Backward elimination: the units left when the least important goes, again and again: `[models, keep]`, in order.

    A unit's importance is by how much the squared error grows when the reader is solved for anew without it (Optimal
    Brain Surgeon, for a group of weights). `matrices` are of values unit by unit, as many for each.
    """
    count, size = len(matrices.gram), matrices.gram.shape[1] // units
    inverse = torch.cholesky_inverse(factor(matrices.gram, RIDGE * matrices.penalty()))
    weights = inverse @ matrices.cross
    left = torch.arange(units, device=inverse.device).expand(count, -1)
    alive = torch.ones_like(left, dtype=torch.bool)
    remaining = units
    while remaining > keep:
        if remaining <= COMPACTED * left.shape[1]:
            left, alive, inverse, weights = _compact(left, alive, inverse, weights, size)
        per_unit = weights.view(count, left.shape[1], size, -1)
        importance = (per_unit * torch.linalg.solve(_diagonal_blocks(inverse, size), per_unit)).sum((2, 3))
        going = min(remaining - keep, max(1, remaining * size // VALUES_FOR_ONE))
        gone = torch.where(alive, importance, torch.inf).argsort(dim=1)[:, :going]
        alive = alive.scatter(1, gone, False)
        remaining -= going
        _take_out(inverse, weights, values_of(gone, size))
    return _compact(left, alive, inverse, weights, size)[0]


def by_contribution(matrices: GramMatrices, weights: Tensor, units: int, keep: int) -> Tensor:
    """The units whose values times `weights` `[models, values, outputs]` vary most, each alone: `[models, keep]`."""
    square = matrices.gram.diagonal(dim1=1, dim2=2) * weights.square().sum(2)
    share = square.view(len(square), units, -1).sum(2)
    return share.argsort(dim=1, descending=True, stable=True)[:, :keep].sort(dim=1).values


def _take_out(inverse: Tensor, weights: Tensor, gone: Tensor) -> None:
    """Make inverse and solution those of the equations without the values `gone` `[models, n]`, in place.

    What stands at these values is then of no meaning, but for ones on the diagonal, so that it can be solved with.
    """
    columns = inverse.gather(2, gone[:, None].expand(-1, inverse.shape[1], -1))
    among = _rows(columns, gone)
    solved = torch.linalg.solve(among, torch.cat([columns.mT, _rows(weights, gone)], dim=2))
    split = inverse.shape[1]
    inverse.baddbmm_(columns, solved[..., :split], alpha=-1)
    weights.baddbmm_(columns, solved[..., split:], alpha=-1)
    inverse.scatter_(1, gone[..., None].expand(-1, -1, split), 0)
    inverse.diagonal(dim1=1, dim2=2).scatter_(1, gone, 1)


def _compact(
    left: Tensor, alive: Tensor, inverse: Tensor, weights: Tensor, size: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """All of it without the units that are gone."""
    stays = (~alive).long().argsort(dim=1, stable=True)[:, : int(alive[0].sum())]
    values = values_of(stays, size)
    retained = _rows(inverse, values).gather(2, values[:, None].expand(-1, values.shape[1], -1))
    return left.gather(1, stays), alive.gather(1, stays), retained, _rows(weights, values)


def _rows(matrix: Tensor, index: Tensor) -> Tensor:
    """The rows at `index` `[models, n]` of each matrix."""
    return matrix.gather(1, index[..., None].expand(-1, -1, matrix.shape[2]))


def _diagonal_blocks(matrix: Tensor, size: int) -> Tensor:
    """`[models, n, n]` → `[models, n / size, size, size]`."""
    units = matrix.shape[1] // size
    return matrix.reshape(len(matrix), units, size, units, size).diagonal(dim1=1, dim2=3).movedim(-1, 1)
