"""Which parts of a network a family of blocks fits, what it would cost there, and how well it can hold them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import nn

from paramtrans.api.adapter import BlockAdapter, Part
from paramtrans.errors import SpecMismatch
from paramtrans.evaluation.costs import count, parameters
from paramtrans.networks.forward.activations import Inputs, first_examples
from paramtrans.networks.forward.examples import Examples
from paramtrans.networks.parts.feature_loss import FeatureLoss
from paramtrans.networks.parts.finding import EXAMPLES, NetworkPart, find_parts, seen_on
from paramtrans.networks.parts.fitting import Fitting
from paramtrans.networks.parts.replacing import STARTED_ON
from paramtrans.networks.parts.targets import start_block, target_for
from paramtrans.ops.distances import streamed_error
from paramtrans.plugins.registry import Registry

BRIEF = Fitting(steps=100, rate=0.1, examples=16, seed=0)
"""Steps on a block that begins at random."""

MORE = 1.25
"""Parameters of a block, as a share of the part's, that it may have: attention without a softmax has few more."""


@dataclass(frozen=True)
class PartFit:
    """A part, and the block that would take its place."""

    path: str
    kind: str
    """Class of the part's module."""
    parameters: tuple[int, int]
    """Before and after."""
    flops: tuple[int, int]
    """Operations of the part and of the block, for one example."""
    started: str
    """`closed form` or `random`."""
    error: float | None
    """Relative reconstruction error on examples that the block was not made of: of the closed form, or of a few steps
    from random. Feature matching makes it less."""


@torch.no_grad()
def part_fits(
    network: nn.Module, target: str, pattern: str, batches: Iterable[Inputs], registry: Registry
) -> tuple[list[PartFit], dict[str, str]]:
    """Modules that a block of this kind could replace without many more parameters, those inside others too.

    Args:
        network: A network in eval mode.
        target: Name of a block adapter, with options behind a question mark.
        pattern: Patterns of paths, between commas.
        batches: Calibration inputs; up to 64 examples of the first batch are used, every other one to judge by.
        registry: The plugins that the adapter comes from.

    Returns:
        Those that it could, in the order in which they run; and of the others, by path, the reason.

    Raises:
        SpecMismatch: no module matches the pattern.
    """
    batch = first_examples(next(iter(batches)), STARTED_ON)
    parts, refused = find_parts(network, [pattern], batch, nested=True)
    fits = []
    for part in parts:
        try:
            adapter = target_for(part, target, None, registry)
            if parameters(adapter.module()) > MORE * parameters(part.part.module):
                raise SpecMismatch("the block would have many more parameters than the part")
            fits.append(_fit(replace(part, part=seen_on(part.part, network, batch)), adapter))
        except SpecMismatch as error:
            refused[part.part.path] = str(error).removeprefix(f"{part.part.path}: ")
    return fits, refused


def _fit(part: NetworkPart, adapter: BlockAdapter) -> PartFit:
    made_of, judged = _two_parts(part.part)
    block, started = start_block(replace(part, part=made_of), adapter, 0)
    if started == "random":
        FeatureLoss(block, [made_of.entering], [made_of.leaving]).fit(Examples([made_of.entering]), BRIEF)
    module, entering = part.part.module, judged.entering
    return PartFit(
        part.part.path,
        type(module).__name__,
        (parameters(module), parameters(block)),
        (_operations(part.part), count(lambda: block(entering[:1]))),
        started,
        streamed_error([(block(entering), judged.leaving)]),
    )


def _two_parts(part: Part) -> tuple[Part, Part]:
    """The part on every other example, and on the others; twice on the same where there is only one."""
    halves = [
        replace(part, entering=part.entering[first::2], leaving=part.leaving[first::2])
        for first in range(min(2, len(part.entering)))
    ]
    return halves[0], halves[-1]


def _operations(part: Part) -> int:
    """Operations of a part for one example."""
    run, examples = part.run, part.entering[:EXAMPLES]
    assert run is not None
    return count(lambda: run(examples)) // len(examples)
