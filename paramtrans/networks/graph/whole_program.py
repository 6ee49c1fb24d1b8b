"""A network's captured program in place of the network: operations alone, so that no number is out of reach."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from paramtrans.errors import DataError, SpecMismatch
from paramtrans.networks.forward.activations import Inputs, arguments, call, first_examples, length
from paramtrans.networks.forward.attention import with_plain_attention
from paramtrans.networks.forward.batches import as_taken
from paramtrans.networks.forward.following import follow, free_axes, quiet
from paramtrans.networks.forward.outputs import tensors_in
from paramtrans.networks.forward.programs import fixed_size, in_words, size_limits, unguarded
from paramtrans.networks.loading.wrappers import copied, unwrapped
from paramtrans.utils.surroundings import pinned

log = logging.getLogger(__name__)

FEW = 2
"""Examples that a network is followed with; of a single one `torch.export` takes the number as fixed."""


@pinned()
def as_program(network: nn.Module, inputs: Inputs) -> nn.Module:
    """A network as the program that `torch.export` captures of it, for networks whose code holds numbers.

    Where a network's own code says how many heads or channels there are, these cannot be left out of the network.
    In its program they can: the number stands among the arguments of an operation, and follows.

    Args:
        network: The network; it is not changed.
        inputs: A batch that it takes, of three examples or more.

    Returns:
        A `torch.fx.GraphModule` in eval mode, called as the network is, with its parameters by the same names and what
        it computes in eval mode. It takes any number of examples (and tokens) where the network can be captured so,
        else as many as `inputs` has; where the network's code goes another way from some length on, lengths up to that.
        Inputs of other sizes are refused. It is saved by `save_exported`, and read by `build("export:FILE.pt2")`.

    Raises:
        SpecMismatch: `torch.export` cannot follow the network.
        DataError: the network does not take the inputs.

    >>> small = translate(as_program(network, images), calibrate=images.split(64))  # doctest: +SKIP
    """
    network = unwrapped(network)
    if isinstance(network, GraphModule):
        return network
    network = copied(network)
    batch = (
        next(iter(as_taken(network, [inputs], tell=False))) if isinstance(inputs, Mapping) else arguments(inputs)[0][0]
    )
    few = first_examples(batch, FEW)
    for examples, axes, tried in ((few, {0, 1}, FEW + 1), (few, {0}, FEW + 1), (batch, set(), length(batch))):
        program = _captured(network, examples, axes)
        if program is not None and _same(network, program, first_examples(batch, tried)):
            _say_limits(program, batch)
            return program
    with with_plain_attention(network):
        follow(network, *arguments(batch))  # says why, where it cannot
    raise SpecMismatch("the program that torch.export captures gives something else than the network")


def _say_limits(program: nn.Module, batch: Inputs) -> None:
    """Warn of lengths that a program does not take, though they are no sizes of images or of features."""
    if (size := fixed_size(program)) is not None:
        log.warning("the captured program takes batches of %d examples alone, as the one it was given", size)
    args, kwargs = arguments(batch)
    tokens = any(isinstance(v, Tensor) and not v.is_floating_point() for v in (*args, *kwargs.values()))
    for name, limits in size_limits(program).items():
        for axis, least, most in limits:
            if least != most or (tokens and axis == 1):
                words = in_words(least, most)
                log.warning("the captured program takes %s with axis %d of length %s", name, axis, words)


def _captured(network: nn.Module, batch: Inputs, axes: Collection[int]) -> GraphModule | None:
    """The program for any length of some axes; None where `torch.export` gives none."""
    args, kwargs = arguments(batch)
    free: Any = None
    if axes:
        positional, named = ([free_axes(value, 1 in axes) for value in values] for values in (args, kwargs.values()))
        free = dict(zip(kwargs, named, strict=True)) if kwargs else tuple(positional)
    try:
        with with_plain_attention(network):
            exported = follow(network, args, kwargs, free)
    except SpecMismatch:
        return None
    with quiet():
        return unguarded(exported.module(check_guards=False))


@torch.no_grad()
def _same(network: nn.Module, program: nn.Module, batch: Inputs) -> bool:
    """Whether a program gives what the network gives."""
    try:
        outputs = tensors_in(call(program, batch))
    except DataError:
        return False
    expected = tensors_in(call(network, batch))
    return len(outputs) == len(expected) and all(map(_close, outputs, expected))


def _close(output: Tensor, expected: Tensor) -> bool:
    return output.shape == expected.shape and torch.allclose(output, expected, 1e-3, 1e-4, equal_nan=True)
