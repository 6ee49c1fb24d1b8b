"""Which hidden units to keep, by what the layer that reads them could still do without the others."""

from __future__ import annotations

import torch
from torch import Tensor

from paramtrans.moments import Moments, factor
from paramtrans.symmetry import values_of

RIDGE = 1e-4
"""Relative to the mean square of each value; what two nearly equal units differ in is noise."""
VALUES_FOR_ONE = 1024
"""Where a reader has more values than this, several units go at once, so that the cost stays that of its solution."""


def by_elimination(moments: Moments, units: int, keep: int) -> Tensor:
    """The units left when the one that is missed least goes, again and again: `[models, keep]`, in order.

    Missed, that is by how much the squared error grows when the reader is solved for anew without it (the Optimal Brain
    Surgeon's measure, for a group of weights). `moments` are of values unit by unit, as many for each.
    """
    count, size = len(moments.gram), moments.gram.shape[1] // units
    inverse = torch.cholesky_inverse(factor(moments.gram, RIDGE * moments.penalty()))
    weights = inverse @ moments.cross
    left = torch.arange(units, device=inverse.device).expand(count, -1)
    while (here := left.shape[1]) > keep:
        per_unit = weights.view(count, here, size, -1)
        missed = (per_unit * torch.linalg.solve(_diagonal_blocks(inverse, size), per_unit)).sum((2, 3))
        going = min(here - keep, max(1, here * size // VALUES_FOR_ONE))
        order = missed.argsort(dim=1)
        gone, stays = values_of(order[:, :going], size), values_of(order[:, going:].sort(dim=1).values, size)
        left = left.gather(1, order[:, going:].sort(dim=1).values)
        inverse, weights = _without(inverse, weights, gone, stays)
    return left


def by_contribution(moments: Moments, weights: Tensor, units: int, keep: int) -> Tensor:
    """The units whose values times `weights` `[models, values, outputs]` vary most, each alone: `[models, keep]`."""
    square = moments.gram.diagonal(dim1=1, dim2=2) * weights.square().sum(2)
    share = square.view(len(square), units, -1).sum(2)
    return share.argsort(dim=1, descending=True, stable=True)[:, :keep].sort(dim=1).values


def _without(inverse: Tensor, weights: Tensor, gone: Tensor, stays: Tensor) -> tuple[Tensor, Tensor]:
    """Inverse and solution of the equations that are left when the values `gone` `[models, n]` are taken out."""
    columns = inverse.gather(2, gone[:, None].expand(-1, inverse.shape[1], -1))
    among, beside = _rows(columns, gone), _rows(columns, stays)
    solved = torch.linalg.solve(among, torch.cat([beside.mT, _rows(weights, gone)], dim=2))
    kept = _rows(inverse, stays).gather(2, stays[:, None].expand(-1, stays.shape[1], -1))
    split = beside.shape[1]
    return kept.baddbmm_(beside, solved[..., :split], alpha=-1), _rows(weights, stays) - beside @ solved[..., split:]


def _rows(matrix: Tensor, index: Tensor) -> Tensor:
    """The rows at `index` `[models, n]` of each matrix."""
    return matrix.gather(1, index[..., None].expand(-1, -1, matrix.shape[2]))


def _diagonal_blocks(matrix: Tensor, size: int) -> Tensor:
    """`[models, n, n]` → `[models, n / size, size, size]`."""
    units = matrix.shape[1] // size
    return matrix.reshape(len(matrix), units, size, units, size).diagonal(dim1=1, dim2=3).movedim(-1, 1)
