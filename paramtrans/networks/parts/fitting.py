"""Optimiser steps on some tensors of a network, stopped by inputs no step sees, reported on inputs neither sees."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from paramtrans.networks.forward.examples import Examples
from paramtrans.utils import seeds

LossOf = Callable[[int, Tensor], Tensor]
"""From the number of a batch, and examples of it, to a loss."""
LOOKS = 20
"""How often the loss is judged on the way."""
JUDGED, FEW = 8, 4
"""One in so many examples judges when to stop, of few examples one in four; no step sees it."""
SMALLEST = 0.01
"""Tensors with a smaller root mean square, such as biases of zero, are changed as if it were this."""


@dataclass(frozen=True)
class Fitting:
    """How many steps, how large, on what."""

    steps: int
    rate: float
    """Learning rate of Adam at the start, in root mean squares of each tensor; it falls to zero along a cosine."""
    examples: int
    """In a step."""
    seed: int


@dataclass(frozen=True)
class Fitted:
    """What came of it."""

    before: float
    """Mean loss before the first step, on the examples kept aside."""
    after: float
    """The same of what stands in the tensors now."""
    steps: int
    """Steps after which these were reached."""


def fit(tensors: Sequence[nn.Parameter], loss_of: LossOf, examples: Examples, how: Fitting) -> Fitted:
    """Adam steps on tensors, in place; they end as what was best on examples that no step saw.

    Args:
        tensors: What is changed. Their `requires_grad` is as before afterwards.
        loss_of: The mean loss on some examples of a batch.
        examples: The inputs in batches. Of those that are not kept aside, one in eight judges when to stop. Those kept
            aside are for `Fitted` alone; of few inputs, which have none kept aside, it is of those that judged.
        how: Steps, rate and so on.
    """
    flags = [tensor.requires_grad for tensor in tensors]
    for tensor in tensors:
        tensor.requires_grad_(True)
    fitted, judging, aside = _split(examples)
    best = [tensor.detach().clone() for tensor in tensors]
    before, lowest, reached = _mean(loss_of, aside), _mean(loss_of, judging), 0
    rates = [how.rate * max(float(tensor.detach().square().mean().sqrt()), SMALLEST) for tensor in tensors]
    optimizer = torch.optim.Adam(
        [{"params": [tensor], "lr": rate} for tensor, rate in zip(tensors, rates, strict=True)]
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, how.steps))
    drawn = _draws(fitted, how)
    for step in range(1, how.steps + 1):
        optimizer.zero_grad()
        with torch.enable_grad():
            loss_of(*next(drawn)).backward()
        nn.utils.clip_grad_norm_(tensors, 1.0)
        optimizer.step()
        schedule.step()
        if step % max(1, how.steps // LOOKS) == 0 or step == how.steps:
            judged = _mean(loss_of, judging)
            if judged < lowest:
                lowest, reached = judged, step
                for kept, tensor in zip(best, tensors, strict=True):
                    kept.copy_(tensor.detach())
    with torch.no_grad():
        for kept, tensor, flag in zip(best, tensors, flags, strict=True):
            tensor.copy_(kept)
            tensor.requires_grad_(flag)
            tensor.grad = None
    return Fitted(before, _mean(loss_of, aside) if reached else before, reached)


Chosen = list[tuple[int, Tensor]]
"""Numbers of batches, each with numbers of some of its examples."""


def _split(examples: Examples) -> tuple[Chosen, Chosen, Chosen]:
    """Examples for the steps, others to judge by, and others to report on; of few the last are those that judge."""
    numbers = torch.arange(examples.total)
    reported = examples.aside(numbers)
    rank = (~reported).cumsum(0) - 1  # among those that are not kept aside
    every = JUDGED if examples.enough else FEW
    judging = ~reported & (rank % every == every - 1)
    fitted = _chosen(~reported & ~judging, examples)
    judges = _chosen(judging, examples) or fitted
    return fitted, judges, _chosen(reported, examples) or judges


def _chosen(which: Tensor, examples: Examples) -> Chosen:
    pieces = which.split(list(examples.sizes))
    return [(number, piece.nonzero()[:, 0]) for number, piece in enumerate(pieces) if piece.any()]


def _draws(fitted: Chosen, how: Fitting) -> Iterator[tuple[int, Tensor]]:
    """Endless small batches, each example once a round, in an order drawn from the seed."""
    generator = torch.Generator().manual_seed(seeds.derive(how.seed, "steps"))
    while True:
        parts = [
            (number, examples[order])
            for number, examples in fitted
            for order in torch.randperm(len(examples), generator=generator).split(how.examples)
        ]
        for index in torch.randperm(len(parts), generator=generator).tolist():
            yield parts[index]


@torch.no_grad()
def _mean(loss_of: LossOf, chosen: Chosen) -> float:
    """Mean loss over some examples."""
    total = sum(float(loss_of(number, examples)) * len(examples) for number, examples in chosen)
    return total / sum(len(examples) for _, examples in chosen)
