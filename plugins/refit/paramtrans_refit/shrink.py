"""Second moments of few examples, shrunk towards what the weights alone say."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from paramtrans.ops.agreement import contributions
from paramtrans.ops.least_squares import GramMatrices

CAUTION = 0.25
"""The whole share is for the most likely matrix, which is more than units are chosen by: with a quarter MiniLM's are
chosen better, and a ResNet-8's as well, from 4 to 256 images."""


def shrunk(matrices: GramMatrices, weights: Tensor, strengths: Tensor, doubt: Tensor | None) -> GramMatrices:
    """The same with the Gram matrix mixed with one of independent units of the weights' own strengths.

    The share of that one is `CAUTION` times the variance of the contributions' Gram matrix over its squared distance
    to it (Ledoit and Wolf 2004, with the variance as halves of the examples say it), so importance goes from what the
    examples show to the squared product of the norms of a unit's weights.

    Args:
        matrices: Of values unit by unit, as many for each.
        weights: What the reader multiplies them by, `[models, values, outputs]`.
        strengths: The product of the norms of each unit's weights, `[models, units]`.
        doubt: `disagreement` of halves of the examples, `[models]`; None where there are too few.
    """
    weights, units = weights.to(matrices.gram), strengths.shape[1]
    size = weights.shape[1] // units
    norms = weights.square().sum(2).view(len(weights), units, size).sum(2).clamp_min(1e-30)
    observed = contributions(matrices.gram, weights)
    squared_strengths = strengths.to(norms).square().clamp_min(1e-30)
    total = observed.diagonal(dim1=1, dim2=2).sum(1, keepdim=True)
    total = torch.where(total > 0, total, 1.0)  # one row alone does not vary
    squares = (squared_strengths * total / squared_strengths.sum(1, keepdim=True) / norms).repeat_interleave(
        size, dim=1
    )
    # The matrix of independent units is diagonal: it is taken from, and added to, the diagonal alone.
    observed.diagonal(dim1=1, dim2=2).sub_(squares * weights.square().sum(2))
    distance = observed.square().sum((1, 2)).clamp_min(1e-30)
    share = torch.ones_like(distance) if doubt is None else CAUTION * (doubt / distance).clamp(max=1.0)
    mixing = share[:, None, None]
    gram = (1 - mixing) * matrices.gram
    gram.diagonal(dim1=1, dim2=2).add_(share[:, None] * squares)
    cross = (1 - mixing) * matrices.cross + mixing * (squares[..., None] * weights)
    return replace(matrices, gram=gram, cross=cross)
