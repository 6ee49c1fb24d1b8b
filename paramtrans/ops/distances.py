"""How far what some blocks or networks compute is from what others do, model by model."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor
from torch.nn.functional import kl_div, log_softmax

from paramtrans.ops.chunks import chunks


def relative_error(values: Tensor, wanted: Tensor, weights: Tensor | None = None) -> Tensor:
    """Relative reconstruction error: mean squared error of each model over the variance of its wanted values.

    Args:
        values: What a block computes, `[models, ...]`.
        wanted: What it should, of the same shape.
        weights: What each value counts, in both; of a shape that spreads over `values`.

    Returns:
        `[models]`: 0 where all is as wanted, 1 for a block that gives the mean.
    """
    error = (values - wanted).square()
    if weights is None:
        return error.flatten(1).mean(1) / wanted.flatten(1).var(1, correction=0).clamp_min(1e-8)
    mean = wanted.flatten(1).mean(1).view(-1, *[1] * (wanted.ndim - 1))
    spread = (weights * (wanted - mean).square()).flatten(1).mean(1)
    return (weights * error).flatten(1).mean(1) / spread.clamp_min(1e-8)


class RelativeError:
    """`relative_error` of one model from pieces, which are never held all at once."""

    def __init__(self) -> None:
        self._error = self._total = self._square = 0.0
        self._count = 0

    def add(self, values: Tensor, wanted: Tensor) -> None:
        """A piece of what is and of what should be, of one shape."""
        for some_values, some_wanted in chunks(values, wanted):
            some_values, some_wanted = some_values.double(), some_wanted.double()
            self._error += (some_values - some_wanted).square().sum().item()
            self._total += some_wanted.sum().item()
            self._square += some_wanted.square().sum().item()
        self._count += wanted.numel()

    @property
    def value(self) -> float:
        """Mean squared error over the variance of what should be."""
        count = max(1, self._count)
        return self._error / count / max(self._square / count - (self._total / count) ** 2, 1e-8)


def streamed_error(pairs: Iterable[tuple[Tensor, Tensor]]) -> float:
    """`relative_error` of one model from pieces, which are never held all at once.

    Args:
        pairs: Pieces of (values, wanted).
    """
    error = RelativeError()
    for values, wanted in pairs:
        error.add(values, wanted)
    return error.value


def divergence(logits: Tensor, wanted: Tensor) -> Tensor:
    """Kullback-Leibler divergence of each model's output probabilities from the wanted ones, in nats.

    The loss of knowledge distillation at temperature 1 (Hinton et al., 2015).

    Args:
        logits: `[models, n, ..., classes]`; of tokens, each counts as much.
        wanted: The logits wanted, of the same shape.

    Returns:
        `[models]`: KL(wanted ‖ given), the mean over examples and tokens.
    """
    logs = (log_softmax(logits, -1), log_softmax(wanted, -1))
    return kl_div(*logs, reduction="none", log_target=True).sum(-1).flatten(1).mean(1)
