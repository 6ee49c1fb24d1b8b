"""What enters the blocks of a network, one after the other, without running all of the network for each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from paramtrans.errors import DataError, SpecMismatch
from paramtrans.networks.blocks.finding import NetworkBlock
from paramtrans.networks.forward.activations import Inputs, Spool, entering, first_examples

ALIKE = 1e-4
"""Largest difference, relative to the largest value, between what goes on from a block and what begins at the start."""


@dataclass(frozen=True)
class Passed:
    """A block that features have been followed to."""

    path: str
    shape_of: nn.Module
    """Says the shape of what leaves it, and computes nothing."""
    entered: Spool


class Entrances:
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
        """What enters a block for each batch; the blocks before it may have been replaced, those behind it not yet."""
        passed = self._passed.setdefault(id(network), [])
        if passed and self._suffices(network, passed, block):
            with _going_on(network, passed, iter(passed[-1].entered)):
                found = entering(network, block.entrance, map(_least, self.batches))
        else:
            found = entering(network, block.entrance, self.batches)
        if block.whole and block.path:
            with torch.device("meta"):
                shape_of = block.adapter.module().eval()
            passed[:] = [Passed(one.path, one.shape_of, Spool()) for one in passed]  # lets go of what it held
            passed.append(Passed(block.path, shape_of, found))
        return found

    def _suffices(self, network: nn.Module, passed: list[Passed], block: NetworkBlock) -> bool:
        """Whether two examples reach the block as they do from the network's start."""
        two = first_examples(next(iter(self.batches)), 2)
        [wanted] = entering(network, block.entrance, [two])
        try:
            with _going_on(network, passed, (kept[:2] for kept in passed[-1].entered)):
                [found] = entering(network, block.entrance, [_least(two)])
        except (DataError, SpecMismatch):
            return False
        same = found.shape == wanted.shape and found.dtype == wanted.dtype
        return same and bool((found - wanted).abs().max() <= ALIKE * wanted.abs().max())


def _least(batch: Inputs) -> Inputs:
    """What is enough to get through a network's start; named arguments may be wanted again later on."""
    return batch if isinstance(batch, Mapping) else first_examples(batch, 1)


@contextmanager
def _going_on(network: nn.Module, passed: list[Passed], entered: Iterator[Tensor]) -> Iterator[None]:
    """The network with the last of some blocks given what entered it, batch by batch, and those before it idle."""
    *idle, last = passed

    def give(_: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
        return (next(entered).to(given[0].device), *given[1:])

    with ExitStack() as undo:
        undo.callback(network.get_submodule(last.path).register_forward_pre_hook(give).remove)
        for one in idle:
            module = network.get_submodule(one.path)
            own = vars(module).get("forward")
            setattr(module, "forward", _zeros(one.shape_of))  # noqa: B010 - mypy takes methods for constants
            undo.callback(_restore, module, own)
        yield


def _zeros(shape_of: nn.Module) -> Any:
    """A forward method that gives zeros of the shape that a module would give."""
    return lambda x, *_, **__: x.new_zeros(shape_of(torch.empty(x.shape, device="meta")).shape)


def _restore(module: nn.Module, own: Any) -> None:
    delattr(module, "forward")
    if own is not None:
        setattr(module, "forward", own)  # noqa: B010 - as above
