"""What units contribute to the layer that reads them, and how far two halves of the examples agree on it."""

from __future__ import annotations

from torch import Tensor

from paramtrans.ops.halves import Halves
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
    first, second = (view(half).gram_matrices().gram for half in halves.halves)
    doubt: Tensor = contributions(first - second, weights).square_().sum((1, 2))
    return doubt
