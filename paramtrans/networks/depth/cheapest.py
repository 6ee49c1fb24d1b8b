"""Which parts of a network cost its outputs least where others, or nothing, stand in for them."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from paramtrans.errors import SpecMismatch
from paramtrans.networks.forward.activations import Inputs, call, every_layer, first_examples
from paramtrans.networks.forward.outputs import tensors_in
from paramtrans.networks.forward.replaced import replace_forward
from paramtrans.networks.forward.spool import Spool
from paramtrans.ops.distances import RelativeError
from paramtrans.utils.counts import counted
from paramtrans.utils.progress import Reporter

JUDGED_ON = 32
"""Examples on which costs are measured, at most."""


def count_gone(depth: float, total: int) -> int:
    """How many of some blocks go, so that a share of them stays.

    Args:
        depth: The share, from 0 to 1.
        total: Blocks.

    Raises:
        SpecMismatch: none goes, or this is no share.
    """
    if not 0 <= depth < 1:
        raise SpecMismatch(f"depth: {depth:g} is no share of blocks that stay; give a number from 0 up to, not with, 1")
    gone = total - int(depth * total + 0.5)
    if not gone:
        raise SpecMismatch(
            f"depth: a share of {depth:g} of {total} blocks is all of them; at {(total - 1) / total:.2f} one goes"
        )
    return gone


def some_examples(batches: Iterable[Inputs], count: int) -> list[Inputs]:
    """About so many examples of some batches, from all of them alike; two or more of each that is taken from."""
    batches = list(batches)
    per_batch = max(2, -(-count // len(batches)))
    return [first_examples(batch, per_batch) for batch in batches[:: max(1, per_batch * len(batches) // count)]]


@contextmanager
def standing_in(network: nn.Module, blocks: Mapping[str, nn.Module]) -> Iterator[None]:
    """Within it, blocks compute what modules of a network would; all else that a module is, is still there.

    Args:
        network: Is as before afterwards.
        blocks: For paths of modules the blocks that take the same arguments.
    """
    with ExitStack() as undo:
        for path, block in blocks.items():
            undo.callback(replace_forward(network.get_submodule(path), block.forward))
        yield


@torch.no_grad()
def cheapest(
    network: nn.Module, blocks: Mapping[str, nn.Module], count: int, batches: Sequence[Inputs], reporter: Reporter
) -> list[str]:
    """The parts of a network that change its outputs least where blocks stand in for them, one after the other.

    The next is always the one that costs least behind those before it. What a part cost earlier is taken as the least
    that it costs now, so that few are measured again (lazy greedy: Minoux, 1978).

    Args:
        network: In eval mode; it is as before afterwards.
        blocks: For paths of parts the blocks that would stand in for them.
        count: How many to choose.
        batches: Inputs that no block was fitted to.
        reporter: Shows the progress.

    Returns:
        `count` paths, the first costs least.
    """
    wanted = Spool()
    for batch in batches:
        for output in _outputs(network, batch):
            wanted.add(output)
    chosen: list[str] = []
    costs: list[tuple[float, str, int]] = []
    with reporter.stage(f"choosing {count} of {counted(len(blocks), 'block')}", len(blocks) + count) as stage:
        for path in blocks:
            heapq.heappush(costs, (_cost(network, {path: blocks[path]}, batches, wanted), path, 0))
            stage.advance(note=path)
        while len(chosen) < count:
            cost, path, chosen_before = heapq.heappop(costs)
            if chosen_before < len(chosen):
                cost = _cost(network, {gone: blocks[gone] for gone in (*chosen, path)}, batches, wanted)
                heapq.heappush(costs, (cost, path, len(chosen)))
                continue
            chosen.append(path)
            stage.advance(note=path)
    return chosen


def _cost(network: nn.Module, blocks: Mapping[str, nn.Module], batches: Sequence[Inputs], wanted: Spool) -> float:
    """Mean relative error of the network's outputs with some blocks in it; infinite where these are no numbers."""
    errors: dict[int, RelativeError] = {}
    expected = iter(wanted)
    with standing_in(network, blocks):
        for batch in batches:
            for position, output in enumerate(_outputs(network, batch)):
                errors.setdefault(position, RelativeError()).add(output, next(expected).to(output.device))
    known = [error.value for error in errors.values() if error.value is not None]
    mean = sum(known) / max(1, len(known))
    return mean if math.isfinite(mean) else math.inf


def _outputs(network: nn.Module, batch: Inputs) -> list[Tensor]:
    """What a network gives for a batch, each with an axis or more."""
    with every_layer([]):
        outputs = tensors_in(call(network, batch))
    return [torch.atleast_1d(output) for output in outputs if output.is_floating_point()]
