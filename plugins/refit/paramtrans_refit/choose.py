"""Which hidden units to keep, by what the layer that reads them could still do without the others."""

from __future__ import annotations

import torch
from torch import Tensor

from paramtrans.moments import Moments

RIDGE = 1e-4
"""Relative to the mean square of each value; what two nearly equal units differ in is noise."""


def by_elimination(moments: Moments, units: int, keep: int) -> Tensor:
    """The units left when the one that is missed least goes, again and again: `[models, keep]`, in order.

    Missed, that is by how much the squared error grows when the reader is solved for anew without it (the Optimal Brain
    Surgeon's measure, for a group of weights). `moments` are of values unit by unit, as many for each.
    """
    count, size = len(moments.gram), moments.gram.shape[1] // units
    inverse = torch.linalg.inv(moments.gram + torch.diag_embed(RIDGE * moments.penalty()))
    weights = inverse @ moments.cross
    rows = torch.arange(count, device=inverse.device)
    left = torch.ones(count, units, dtype=torch.bool, device=inverse.device)
    for _ in range(units - keep):
        blocks = _diagonal_blocks(inverse, size)
        per_unit = weights.view(count, units, size, -1)
        missed = (per_unit * torch.linalg.solve(blocks, per_unit)).sum((2, 3)).masked_fill(~left, torch.inf)
        worst = missed.argmin(1)
        left[rows, worst] = False
        values = worst[:, None] * size + torch.arange(size, device=worst.device)
        column = inverse.gather(2, values[:, None].expand(-1, inverse.shape[1], -1))
        solved = torch.linalg.solve(blocks[rows, worst], torch.cat([column.mT, per_unit[rows, worst]], dim=2))
        inverse = inverse - column @ solved[:, :, : inverse.shape[1]]
        weights = weights - column @ solved[:, :, inverse.shape[1] :]
        # What is gone must not be zero by rounding alone, for its block is still solved with.
        inverse = _identity_at(inverse, values)
        weights = weights.scatter(1, values[..., None].expand(-1, -1, weights.shape[2]), 0.0)
    return left.nonzero()[:, 1].view(count, keep)


def _diagonal_blocks(matrix: Tensor, size: int) -> Tensor:
    """`[models, n, n]` → `[models, n / size, size, size]`."""
    units = matrix.shape[1] // size
    return matrix.view(len(matrix), units, size, units, size).diagonal(dim1=1, dim2=3).movedim(-1, 1)


def _identity_at(matrix: Tensor, values: Tensor) -> Tensor:
    """The same with rows and columns `values` `[models, size]` of the identity."""
    for one, gone in zip(matrix, values, strict=True):
        one[gone], one[:, gone], one[gone, gone] = 0.0, 0.0, 1.0
    return matrix
