"""What units contribute to the layer that reads them, and how far two halves of the examples agree on it."""

from __future__ import annotations

import torch
from torch import Tensor

from paramtrans.ops.few_rows import FewRows
from paramtrans.ops.halves import Halves
from paramtrans.ops.least_squares import squared
from paramtrans.ops.views import View

LEAST_TO_AGREE = 8
"""Examples of which two halves can be said to agree."""


def contributions(gram: Tensor, weights: Tensor) -> Tensor:
    """A Gram matrix of values, each times the norm of the reader's weights `[models, values, outputs]` for it."""
    norms: Tensor = weights.to(gram).norm(dim=2)
    return (gram * norms[:, :, None]).mul_(norms[:, None, :])


def disagreement(view: View, halves: Halves, weights: Tensor, examples: int) -> Tensor | None:
    """Squared difference of what two halves of the examples say of contributions: `[models]`; None of fewer than eight.

    Its expectation is the variance of their sum, however rows inside an example depend on each other. Of few examples
    in each half, whose means are taken out, it says too little.
    """
    if not halves.two or examples < LEAST_TO_AGREE:
        return None
    first, second = (view(half) for half in halves.halves)
    if isinstance(first, FewRows) and isinstance(second, FewRows):
        return _of_rows(first, second, weights)
    apart = (first.gram_matrices().gram - second.gram_matrices().gram).square_()
    # The squares of `contributions`, without a second matrix of that size.
    norms = weights.to(apart).square().sum(2, keepdim=True)
    doubt: Tensor = (norms.mT @ apart @ norms)[:, 0, 0]
    return doubt


def _of_rows(first: FewRows, second: FewRows, weights: Tensor) -> Tensor:
    """The same where rows are few: ‖AᵀA - BᵀB‖² = ‖AAᵀ‖² + ‖BBᵀ‖² - 2 ‖ABᵀ‖², of rows A and B with values weighed."""
    norms = weights.double().norm(dim=2)[:, None]
    count = first.read.shape[1]
    rows = torch.cat([first.read * norms, second.read * norms], dim=1).float()
    products = torch.stack([squared(of_model.mT) for of_model in rows]).double().square_()
    halves = products[:, :count, :count].sum((1, 2)) + products[:, count:, count:].sum((1, 2))
    return (halves - 2 * products[:, :count, count:].sum((1, 2))).clamp_min(0)
