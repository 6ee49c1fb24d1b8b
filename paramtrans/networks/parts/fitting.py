"""Optimiser steps on some tensors of a network. Inputs that no step uses say when to stop, others how good it is."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from paramtrans.networks.forward.examples import Examples
from paramtrans.networks.parts.exact_adam import ExactAdam
from paramtrans.utils import seeds
from paramtrans.utils.precision import HALF

log = logging.getLogger(__name__)

LossOf = Callable[[int, Tensor], Tensor]
"""From the number of a batch, and examples of it, to a loss."""
LOOKS = 20
"""How often the loss is measured on the way."""
JUDGED, FEW = 8, 4
"""One of `JUDGED` examples says when to stop, of few examples one of `FEW`; no step uses these."""


@dataclass(frozen=True)
class Fitting:
    """How many steps, how large, on how many examples."""

    steps: int
    rate: float
    """Learning rate of Adam at the start, in root mean squares of each tensor; it falls to zero along a cosine."""
    examples: int
    """In a step."""
    seed: int


@dataclass(frozen=True)
class Fitted:
    """The error before and after, and the steps taken."""

    before: float
    """Mean error before the first step, on the examples kept aside."""
    after: float
    """The same with the tensors as they are now."""
    steps: int
    """Steps after which these were reached."""


def fit(
    tensors: Sequence[nn.Parameter],
    loss_of: LossOf,
    examples: Examples,
    settings: Fitting,
    advance: Callable[[int, float], None] = lambda steps, loss: None,
    error_of: LossOf | None = None,
) -> Fitted:
    """Adam steps on tensors (Kingma and Ba, 2015, arXiv 1412.6980); the best values on examples that no step used stay.

    Args:
        tensors: Are changed. Their `requires_grad` is as before afterwards.
        loss_of: The mean loss on some examples of a batch.
        examples: The inputs in batches. Of those that are not kept aside, one in eight says when to stop. Those kept
            aside are for `Fitted` alone; few inputs, of which none are kept aside, are split in two parts only.
        settings: Steps, learning rate and so on.
        advance: Is called on the way with the number of further steps, and the loss that says when to stop.
        error_of: What `Fitted` says of the examples kept aside, where it is not the loss.
    """
    error_of = error_of or loss_of
    flags = [tensor.requires_grad for tensor in tensors]
    for tensor in tensors:
        tensor.requires_grad_(True)
    fitted, judging, aside = _split(examples)
    best = [tensor.detach().clone() for tensor in tensors]
    error_before, least_loss, best_step = _mean(error_of, aside), _mean(loss_of, judging), 0
    adam = ExactAdam(tensors, settings.rate, settings.steps)
    draws, reported, seen_finite = _draws(fitted, settings), 0, False
    for step in range(1, settings.steps + 1):
        with torch.enable_grad():
            adam.step(loss_of(*next(draws)))
        if step % max(1, settings.steps // LOOKS) == 0 or step == settings.steps:
            loss = _mean(loss_of, judging)
            seen_finite |= math.isfinite(loss)
            advance(step - reported, loss)
            reported = step
            if loss < least_loss:
                least_loss, best_step = loss, step
                for best_values, tensor in zip(best, tensors, strict=True):
                    best_values.copy_(tensor.detach())
    if settings.steps and not seen_finite:
        half = next((tensor.dtype for tensor in tensors if tensor.dtype in HALF), None)
        advice = f" in {str(half).removeprefix('torch.')}; translate in float32" if half else ""
        log.warning("no step could be taken: what the fitted blocks give is not finite%s", advice)
    with torch.no_grad():
        for best_values, tensor, flag in zip(best, tensors, flags, strict=True):
            tensor.copy_(best_values)
            tensor.requires_grad_(flag)
            tensor.grad = None
    return Fitted(error_before, _mean(error_of, aside) if best_step else error_before, best_step)


Chosen = list[tuple[int, Tensor]]
"""Numbers of batches, each with numbers of some of its examples."""


def _split(examples: Examples) -> tuple[Chosen, Chosen, Chosen]:
    """Examples for the steps, others that say when to stop, others to report on; of few, the last two are the same."""
    numbers = torch.arange(examples.total)
    reported = examples.aside(numbers)
    rank = (~reported).cumsum(0) - 1  # among those that are not kept aside
    interval = JUDGED if examples.enough else FEW
    judging = ~reported & (rank % interval == interval - 1)
    fitted = _by_batch(~reported & ~judging, examples)
    judges = _by_batch(judging, examples) or fitted
    return fitted, judges, _by_batch(reported, examples) or judges


def _by_batch(is_chosen: Tensor, examples: Examples) -> Chosen:
    """The chosen examples, batch by batch."""
    by_batch = is_chosen.split(list(examples.sizes))
    return [(number, of_batch.nonzero()[:, 0]) for number, of_batch in enumerate(by_batch) if of_batch.any()]


def _draws(fitted: Chosen, settings: Fitting) -> Iterator[tuple[int, Tensor]]:
    """Endless small batches, each example once a round, in an order drawn from the seed."""
    generator = torch.Generator().manual_seed(seeds.derive(settings.seed, "steps"))
    while True:
        steps = [
            (number, examples[order])
            for number, examples in fitted
            for order in torch.randperm(len(examples), generator=generator).split(settings.examples)
        ]
        for index in torch.randperm(len(steps), generator=generator).tolist():
            yield steps[index]


def reported_error(error_of: LossOf, examples: Examples) -> float:
    """The mean error on the examples that `Fitted` speaks of.

    Args:
        error_of: On some examples of a batch.
        examples: The inputs in batches.
    """
    return _mean(error_of, _split(examples)[2])


@torch.no_grad()
def _mean(loss_of: LossOf, chosen: Chosen) -> float:
    """Mean loss over some examples."""
    total = sum(float(loss_of(number, examples)) * len(examples) for number, examples in chosen)
    return total / sum(len(examples) for _, examples in chosen)
