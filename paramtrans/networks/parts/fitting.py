"""Optimiser steps on some tensors of a network, stopped and taken back by inputs that are kept aside."""

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
"""How often the loss on the inputs kept aside is measured."""
FEW = 4
"""Of few examples, one of `FEW` is used to measure the loss; errors are then not those of inputs kept aside."""
SMALLEST = 0.01
"""Tensors with a smaller root mean square, such as biases of zero, are changed as if it were this."""


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
    """The loss before and after, and the steps taken."""

    before: float
    """Mean loss on the examples kept aside, before the first step."""
    after: float
    """The same of what stands in the tensors now; never more."""
    steps: int
    """Steps after which these were reached."""


def fit(tensors: Sequence[nn.Parameter], loss_of: LossOf, examples: Examples, settings: Fitting) -> Fitted:
    """Adam steps on tensors (Kingma and Ba, 2015, arXiv 1412.6980); the best values on the examples kept aside stay.

    Args:
        tensors: Are changed. Their `requires_grad` is as before afterwards.
        loss_of: The mean loss on some examples of a batch.
        examples: The inputs in batches. No step uses those kept aside; of few, these are one in four.
        settings: Steps, learning rate and so on.
    """
    flags = [tensor.requires_grad for tensor in tensors]
    for tensor in tensors:
        tensor.requires_grad_(True)
    fitted, aside = _kept_aside(examples)
    best = [tensor.detach().clone() for tensor in tensors]
    loss_before = best_loss = _mean(loss_of, aside)
    best_step = 0
    rates = [settings.rate * max(float(tensor.detach().square().mean().sqrt()), SMALLEST) for tensor in tensors]
    optimizer = torch.optim.Adam(
        [{"params": [tensor], "lr": rate} for tensor, rate in zip(tensors, rates, strict=True)]
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, settings.steps))
    draws = _draws(fitted, settings)
    for step in range(1, settings.steps + 1):
        optimizer.zero_grad()
        with torch.enable_grad():
            loss_of(*next(draws)).backward()
        nn.utils.clip_grad_norm_(tensors, 1.0)
        optimizer.step()
        schedule.step()
        if step % max(1, settings.steps // LOOKS) == 0 or step == settings.steps:
            loss = _mean(loss_of, aside)
            if loss < best_loss:
                best_loss, best_step = loss, step
                for best_values, tensor in zip(best, tensors, strict=True):
                    best_values.copy_(tensor.detach())
    with torch.no_grad():
        for best_values, tensor, flag in zip(best, tensors, flags, strict=True):
            tensor.copy_(best_values)
            tensor.requires_grad_(flag)
            tensor.grad = None
    return Fitted(loss_before, best_loss, best_step)


Chosen = list[tuple[int, Tensor]]
"""Numbers of batches, each with numbers of some of its examples."""


def _kept_aside(examples: Examples) -> tuple[Chosen, Chosen]:
    """Examples for the steps, and others to judge by; of fewer than four the same for both."""
    numbers = torch.arange(examples.total)
    is_aside = examples.aside(numbers) if examples.enough else numbers % FEW == FEW - 1
    by_batch = is_aside.split(list(examples.sizes))
    fitted = [
        (number, (~batch_aside).nonzero()[:, 0]) for number, batch_aside in enumerate(by_batch) if not batch_aside.all()
    ]
    aside = [(number, batch_aside.nonzero()[:, 0]) for number, batch_aside in enumerate(by_batch) if batch_aside.any()]
    return fitted, aside or fitted


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


@torch.no_grad()
def _mean(loss_of: LossOf, chosen: Chosen) -> float:
    """Mean loss over some examples."""
    total = sum(float(loss_of(number, examples)) * len(examples) for number, examples in chosen)
    return total / sum(len(examples) for _, examples in chosen)
