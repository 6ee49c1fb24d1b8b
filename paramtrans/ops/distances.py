"""How far what some blocks or networks compute is from what others do, model by model."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn.functional import kl_div, log_softmax

from paramtrans.ops.chunks import CHUNK, chunks
from paramtrans.utils.precision import widened

CONSTANT = 1e-12
"""Variance, relative to the mean square, that is rounding: values are all the same."""


def relative_error(values: Tensor, wanted: Tensor, weights: Tensor | None = None) -> Tensor:
    """Relative reconstruction error: mean squared error of each model over the variance of its wanted values.

    Args:
        values: What a block computes, `[models, ...]`.
        wanted: What it should, of the same shape.
        weights: What each value counts, in both; of a shape that spreads over `values`.

    Returns:
        `[models]`: 0 where all is as wanted, 1 for a block that gives the mean. Where wanted values are all the same,
        it is relative to their mean square, or to 1 where they are zero.
    """
    values, wanted = widened(values), widened(wanted)
    error, square = (values - wanted).square(), wanted.square()
    if weights is None:
        variance = wanted.flatten(1).var(1, correction=0)
    else:
        mean = wanted.flatten(1).mean(1).view(-1, *[1] * (wanted.ndim - 1))
        variance = (weights * (wanted - mean).square()).flatten(1).mean(1)
        error, square = weights * error, weights * square
    mean_square = square.flatten(1).mean(1)
    scale = torch.where(variance > CONSTANT * mean_square, variance, mean_square)
    return error.flatten(1).mean(1) / torch.where(scale > 0, scale, 1)


class Variance:
    """Variance of the values of one model around the mean of each channel, from pieces, which are never held at once.

    Channels are on axis 1, behind the examples, or on the last: whichever leaves the smaller variance.
    """

    def __init__(self) -> None:
        self._count, self._square, self._total = 0, 0.0, 0.0
        self._totals: dict[int, Tensor] | None = None

    def add(self, values: Tensor) -> None:
        """A piece, `[n, ...]`; an axis that has other lengths in other pieces is none of channels."""
        for (part,) in chunks(values):
            part = part.double()
            self._total += part.sum().item()
            self._square += part.square().sum().item()
        self._count += values.numel()
        totals = {axis: _totals(values, axis) for axis in ((1, -1) if values.ndim > 1 else ())}
        known = totals if self._totals is None else self._totals
        axes = [axis for axis in known.keys() & totals.keys() if known[axis].shape == totals[axis].shape]
        self._totals = {axis: totals[axis] + (known[axis] if known is not totals else 0) for axis in axes}

    @property
    def mean_square(self) -> float:
        """Of all values."""
        return self._square / max(1, self._count)

    @property
    def value(self) -> float:
        """The mean over channels; 0 where all that is left is rounding."""
        count = max(1, self._count)
        of_means = [(self._total / count) ** 2]
        of_means += [float((len(totals) * totals / count).square().mean()) for totals in (self._totals or {}).values()]
        variance = self.mean_square - max(of_means)
        return 0.0 if variance <= CONSTANT * self.mean_square else variance

    @property
    def scale(self) -> float:
        """What squared errors in a loss are divided by: never 0, also where values are all the same."""
        return self.value or self.mean_square or 1.0


def _totals(values: Tensor, axis: int) -> Tensor:
    """Sums over all other axes, in double precision, of some channels at a time."""
    others = [other for other in range(values.ndim) if other != axis % values.ndim]
    at_once = max(1, CHUNK * values.shape[axis] // max(1, values.numel()))
    return torch.cat([part.double().sum(others) for part in values.split(at_once, axis)]).cpu()


class RelativeError:
    """Mean squared error of one model's values over their `Variance`, from pieces, which are never held all at once."""

    def __init__(self) -> None:
        self._error, self._count, self._variance = 0.0, 0, Variance()

    def add(self, values: Tensor, wanted: Tensor) -> None:
        """A piece `[n, ...]` of what is and of what should be, of one shape."""
        for some_values, some_wanted in chunks(values, wanted):
            self._error += (some_values.double() - some_wanted.double()).square().sum().item()
        self._count += wanted.numel()
        self._variance.add(wanted)

    @property
    def value(self) -> float | None:
        """0 where all is as wanted, 1 for a constant of each channel; None where wanted values never differ, unless
        they are met."""
        error, variance = self._error / max(1, self._count), self._variance.value
        if variance == 0:
            return 0.0 if error <= CONSTANT * self._variance.mean_square else None
        return error / variance


def streamed_error(pairs: Iterable[tuple[Tensor, Tensor]]) -> float | None:
    """`RelativeError` of pieces.

    Args:
        pairs: Pieces `[n, ...]` of (values, wanted).
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
