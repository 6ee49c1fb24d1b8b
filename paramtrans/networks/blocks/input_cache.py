"""What enters the blocks of a network, one after the other, without running all of the network for each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from paramtrans.api.adapter import BlockAdapter
from paramtrans.errors import DataError, SpecMismatch
from paramtrans.networks.blocks.finding import NetworkBlock
from paramtrans.networks.forward.activations import Inputs, entering, first_examples
from paramtrans.networks.forward.replaced import replace_forward
from paramtrans.networks.forward.spool import Spool

ALIKE = 1e-4
"""Largest difference, relative to the largest value, between a pass from a block on and one from the start."""


@dataclass(frozen=True)
class Passed:
    """A block that features have been followed to."""

    path: str
    shape_of: Callable[[torch.Size], torch.Size]
    """The shape of what leaves it, by that of what enters it."""
    entered: Spool


class InputCache:
    """What enters blocks of networks in eval mode, block by block, in the order of the features.

    A network goes on from what entered the block before, if that is a module of its own: all before that has one
    example to pass, and blocks there give zeros of the right shape, since nothing that comes of them is needed. Whether
    nothing is, as in a chain of blocks, is tried on two examples each time; otherwise, with skips over several blocks,
    the network runs from its start. What is kept is what entered two blocks, in bounded memory.
    """

    def __init__(self, batches: Iterable[Inputs]) -> None:
        self.batches = batches
        self.known = next(iter(batches), None) is not None
        """Whether there are any inputs."""
        self._passed: dict[int, list[Passed]] = {}

    def entering(self, network: nn.Module, block: NetworkBlock) -> Spool:
        """What enters a block, for each batch.

        Args:
            network: In eval mode. Blocks before this one may have been replaced, those behind it not yet.
            block: A block of it, behind all that were asked for before.

        Returns:
            Features `[n, ...]`, batch by batch.
        """
        passed = self._passed.setdefault(id(network), [])
        if passed and self._suffices(network, passed, block):
            with _going_on(network, passed, iter(passed[-1].entered)):
                entered = entering(network, block.entrance, map(_least, self.batches))
        else:
            entered = entering(network, block.entrance, self.batches)
        if block.whole and block.path:
            shape_of = _shapes(block.adapter)
            passed[:] = [
                Passed(earlier.path, earlier.shape_of, Spool()) for earlier in passed
            ]  # lets go of what it held
            passed.append(Passed(block.path, shape_of, entered))
        return entered

    def _suffices(self, network: nn.Module, passed: list[Passed], block: NetworkBlock) -> bool:
        """Whether two examples reach the block as they do from the network's start."""
        two_examples = first_examples(next(iter(self.batches)), 2)
        [expected] = entering(network, block.entrance, [two_examples])
        try:
            with _going_on(network, passed, (features[:2] for features in passed[-1].entered)):
                [entered] = entering(network, block.entrance, [_least(two_examples)])
        except (DataError, SpecMismatch):
            return False
        same_kind = entered.shape == expected.shape and entered.dtype == expected.dtype
        return same_kind and bool((entered - expected).abs().max() <= ALIKE * expected.abs().max())


def _least(batch: Inputs) -> Inputs:
    """What is enough to get through a network's start; named arguments may be wanted again later on."""
    return batch if isinstance(batch, Mapping) else first_examples(batch, 1)


@contextmanager
def _going_on(network: nn.Module, passed: list[Passed], entered: Iterator[Tensor]) -> Iterator[None]:
    """The network with the last of some blocks given what entered it, batch by batch, and those before it idle."""
    *idle, last_passed = passed

    def give(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (next(entered).to(args[0].device), *args[1:])

    with ExitStack() as undo:
        undo.callback(network.get_submodule(last_passed.path).register_forward_pre_hook(give).remove)
        for block_before in idle:
            module = network.get_submodule(block_before.path)
            undo.callback(replace_forward(module, _zeros(block_before.shape_of)))
        yield


def _shapes(adapter: BlockAdapter) -> Callable[[torch.Size], torch.Size]:
    """Tells the shape of what leaves a block, and computes nothing."""
    with torch.device("meta"):
        module = adapter.module().eval()
    # Without values even a BatchNorm runs for milliseconds, in Python; batches are mostly of one shape.
    return cache(lambda shape: module(torch.empty(shape, device="meta")).shape)


def _zeros(shape_of: Callable[[torch.Size], torch.Size]) -> Any:
    """A forward method that gives zeros of the shape that a module would give."""
    return lambda x, *_, **__: x.new_zeros(shape_of(x.shape))
