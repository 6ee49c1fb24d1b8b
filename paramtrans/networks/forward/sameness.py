"""Calibration inputs that say nothing, as all examples are the same, or all that the network gives for them is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from paramtrans.networks.forward.activations import Inputs, call, first_examples, input_tensors, length
from paramtrans.networks.forward.outputs import tensors_in
from paramtrans.networks.forward.programs import fixed_size

ROUNDING = 1e-6
"""Relative difference of values that are the same."""


@torch.no_grad()
def said_of_sameness(network: nn.Module, batches: Iterable[Inputs]) -> str | None:
    """A warning where calibration inputs do not show what units are for; None where they may.

    Batches are gone through, and run, until two examples differ: mostly two examples of the first.

    Args:
        network: In eval mode.
        batches: Inputs as the network takes them.
    """
    if _same(([*input_tensors(batch).values()], length(batch)) for batch in batches):
        return (
            "all calibration inputs are the same, so that they say nothing of which units matter, and errors look "
            "better than they are; give inputs as the network meets them in use"
        )
    if _same((_outputs(network, batch), length(batch)) for batch in _few_first(network, batches)):
        return (
            "the network gives the same for all calibration inputs, so that they say nothing of which units matter, "
            "and errors look better than they are; scale the inputs as in training, and check that the parameters are "
            "the trained ones"
        )
    return None


def _few_first(network: nn.Module, batches: Iterable[Inputs]) -> Iterator[Inputs]:
    """Two examples, where the network takes so few of a batch, then all."""
    first = next(iter(batches), None)
    if first is not None and length(first) > 2 and fixed_size(network) is None:
        yield first_examples(first, 2)
    yield from batches


def _same(pieces: Iterable[tuple[list[Tensor], int]]) -> bool:
    """Whether tensors of two examples or more are the same for each, as far as they have an entry for each."""
    first: list[Tensor] | None = None
    total = 0
    for tensors, count in pieces:
        total += count
        if first is None:
            first = [_first(tensor, count) for tensor in tensors]
        if len(tensors) != len(first) or not all(map(_repeats, tensors, first)):
            return False
    return total > 1 and bool(first)


def _first(tensor: Tensor, count: int) -> Tensor:
    return tensor[:1] if tensor.ndim and len(tensor) == count else tensor


def _repeats(tensor: Tensor, first: Tensor) -> bool:
    """Whether a tensor is another one, as often as may be."""
    if tensor.shape != first.shape and (tensor.shape[1:] != first.shape[1:] or first.shape[:1] != (1,)):
        return False
    return torch.allclose(tensor, first.expand_as(tensor), rtol=ROUNDING, atol=0)


def _outputs(network: nn.Module, batch: Inputs) -> list[Tensor]:
    return [tensor for tensor in tensors_in(call(network, batch)) if tensor.is_floating_point()]
