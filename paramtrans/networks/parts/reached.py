"""Parts of a network reached one after the other, in one pass of the untouched and one of the smaller network."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from paramtrans.errors import SpecMismatch
from paramtrans.networks.forward.activations import Inputs
from paramtrans.networks.forward.at_modules import ModuleCall, ModulePass, Stops
from paramtrans.networks.forward.lockstep import Lockstep, Parted
from paramtrans.networks.parts.finding import NetworkPart
from paramtrans.networks.parts.running import feature_of, split_output


@dataclass(frozen=True)
class ReachedPart:
    """A part, with what enters it in the smaller network and what leaves it in the untouched one."""

    first_entering: Tensor
    """In the untouched network, of the first examples."""
    first_leaving: Tensor
    entering: list[Tensor]
    """`[n, ...]` for each batch."""
    leaving: list[Tensor]
    calls: Sequence[ModuleCall]
    """Those of the smaller network."""

    def seen(self, part: NetworkPart) -> NetworkPart:
        """The part with the features of the first examples.

        Args:
            part: As it was found.
        """
        return replace(part, part=replace(part.part, entering=self.first_entering, leaving=self.first_leaving))

    @torch.no_grad()
    def go_on(self, block: nn.Module) -> None:
        """Let the smaller network go on with what a block gives.

        Args:
            block: Is called as the part was.
        """
        block.eval()
        for module_call in self.calls:
            module_call.output = block(*module_call.args, **module_call.kwargs)


@contextmanager
def both_passing(
    network: nn.Module, smaller: nn.Module, first: Inputs, batches: Sequence[Inputs], paths: Sequence[str]
) -> Iterator[Iterator[ReachedPart]]:
    """The parts, each when the passes have reached it; they end behind the last.

    Args:
        network: The untouched one, in eval mode; its parts compute what they always do.
        smaller: A copy, whose parts give what `ReachedPart.go_on` says.
        first: A few examples, of which features are wanted in the untouched network.
        batches: Inputs of both.
        paths: Of the parts, in the order in which they run.
    """
    sides = network, smaller
    passes = [ModulePass(network, first), *(ModulePass(side, batch) for side in sides for batch in batches)]
    with ExitStack() as stack:
        stops = [stack.enter_context(Stops(side, paths)) for side in sides]
        lockstep = stack.enter_context(Lockstep[ModuleCall](passes))
        yield _reached(lockstep, stops, paths, len(batches))


def _reached(
    lockstep: Lockstep[ModuleCall], stops: Iterable[Stops], paths: Sequence[str], count: int
) -> Iterator[ReachedPart]:
    calls_of_parts = lockstep.layers()
    for path in paths:
        with suppress(Parted):
            calls = next(calls_of_parts, None)
            if calls and calls[0].layer == path:
                for of_side in stops:
                    of_side.release(path)
                yield _reached_part(calls, count)
                continue
        raise SpecMismatch(f"{path} is not reached by every calibration batch, so it cannot be replaced")


def _reached_part(calls: Sequence[ModuleCall], count: int) -> ReachedPart:
    """From calls of the first examples, of so many batches in the untouched network, and of those in the smaller."""
    first, untouched, smaller = calls[0], calls[1 : 1 + count], calls[1 + count :]
    first_entering = _features(first).clone()  # some modules write to what enters them
    leaving = [_computed(module_call) for module_call in untouched]
    return ReachedPart(first_entering, _computed(first), [_features(c) for c in smaller], leaving, smaller)


def _features(module_call: ModuleCall) -> Tensor:
    features = feature_of(module_call.args, module_call.kwargs)
    assert features is not None
    return features


@torch.no_grad()
def _computed(module_call: ModuleCall) -> Tensor:
    """What leaves the part itself, which the pass goes on with."""
    module_call.output = module_call.compute(*module_call.args, **module_call.kwargs)
    leaving, _ = split_output(module_call.output)
    assert leaving is not None
    return leaving
