"""Feature matching of a group of units: the layers that write it and those that read it, trained together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from paramtrans.api.units import Entered, UnitPiece
from paramtrans.ops.distances import relative_error
from paramtrans.utils.precision import widened
from paramtrans_matching.search import LEAST

RELATIVE = 0.01
"""Learning rate where none is given, relative to the root mean square of each tensor."""


def match_units(piece: UnitPiece, steps: int, lr: float | None, examples: int) -> Mapping[str, Tensor]:
    """Tensors with which the layers that read the units give what they gave in the untouched network.

    Adam on the mean over these layers of the squared error relative to its variance. What is found is never further
    from that, on all batches, than what was there.

    Args:
        piece: The group, and the piece of the network around it.
        steps: Optimiser steps.
        lr: Learning rate at the start; it falls to zero along a cosine. None: a hundredth of each tensor's root mean
            square.
        examples: At least so many are in a step, of batches of several shapes where one shape has fewer.
    """
    # Steps are taken in float32: in float16 Adam's squared gradients are lost.
    params = {name: widened(tensor.clone()).requires_grad_(True) for name, tensor in piece.params.items()}
    rates = (RELATIVE * max(float(tensor.square().mean().sqrt()), LEAST) for tensor in piece.params.values())
    groups = [{"params": [tensor], "lr": lr or rate} for tensor, rate in zip(params.values(), rates, strict=True)]
    optimizer = torch.optim.Adam(groups)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    distance_before = _total(piece, piece.params)
    examples = min(examples, sum(len(expected[0]) for _, expected in piece.batches))
    batches = _endless(piece)
    with torch.enable_grad():
        for _ in range(steps):
            optimizer.zero_grad()
            together = _at_least(examples, batches)
            values = [sum(output.numel() for output in expected) for _, expected in together]
            for (entered, expected), count in zip(together, values, strict=True):
                outputs = piece.run(_as_before(params, piece), entered)
                (_distance(outputs, expected) * (count / sum(values))).backward()
            optimizer.step()
            schedule.step()
    matched = {name: tensor.detach() for name, tensor in _as_before(params, piece).items()}
    return matched if _total(piece, matched) <= distance_before else {}


def _as_before(params: Mapping[str, Tensor], piece: UnitPiece) -> dict[str, Tensor]:
    """In the precision of the network."""
    return {name: tensor.to(piece.params[name].dtype) for name, tensor in params.items()}


Batch = tuple[Entered, tuple[Tensor, ...]]


def _endless(piece: UnitPiece) -> Iterator[Batch]:
    while True:
        yield from piece.batches


def _at_least(examples: int, batches: Iterator[Batch]) -> list[Batch]:
    """The next batches, until there are so many examples."""
    together: list[Batch] = []
    while sum(len(expected[0]) for _, expected in together) < examples:
        together.append(next(batches))
    return together


def _distance(outputs: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> Tensor:
    errors = [
        relative_error(output[None], expected_output[None])[0]
        for output, expected_output in zip(outputs, expected, strict=True)
    ]
    return torch.stack(errors).mean()


@torch.no_grad()
def _total(piece: UnitPiece, params: Mapping[str, Tensor]) -> float:
    return sum(float(_distance(piece.run(params, entered), expected)) for entered, expected in piece.batches)
