"""Which parts of a network a family of blocks fits, what it would cost there, and how near its closed form comes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from paramtrans.errors import SpecMismatch
from paramtrans.evaluation.costs import count, parameters
from paramtrans.networks.forward.activations import Inputs
from paramtrans.networks.parts.finding import NetworkPart, find_parts
from paramtrans.networks.parts.targets import start_block, target_for
from paramtrans.ops.distances import relative_error
from paramtrans.plugins.registry import Registry


@dataclass(frozen=True)
class PartFit:
    """A part, and the block that would take its place."""

    path: str
    kind: str
    """Class of the part's module."""
    parameters: tuple[int, int]
    """Before and after."""
    flops: int
    """Operations of the block for one example."""
    started: str
    """`closed form` or `random`."""
    start_error: float | None
    """Relative reconstruction error of the closed form on two examples; feature matching lowers it. None: random."""


@torch.no_grad()
def part_fits(
    network: nn.Module, target: str, pattern: str, batches: Iterable[Inputs], registry: Registry
) -> tuple[list[PartFit], dict[str, str]]:
    """Modules that a block of this kind could replace without more parameters, those inside others too.

    Args:
        network: A network in eval mode.
        target: Name of a block adapter, with options behind a question mark.
        pattern: Patterns of paths, between commas.
        batches: Calibration inputs; two examples of the first batch are used.
        registry: The plugins that the adapter comes from.

    Returns:
        Those that it could, in the order in which they run; and of the others, by path, the reason.

    Raises:
        SpecMismatch: no module matches the pattern.
    """
    parts, refused = find_parts(network, [pattern], next(iter(batches)), nested=True)
    fits = []
    for part in parts:
        try:
            fit = _fit(part, target, registry)
        except SpecMismatch as error:
            refused[part.part.path] = str(error).removeprefix(f"{part.part.path}: ")
            continue
        if fit.parameters[1] > fit.parameters[0]:
            refused[fit.path] = "the block would have more parameters than the part"
        else:
            fits.append(fit)
    return fits, refused


def _fit(part: NetworkPart, text: str, registry: Registry) -> PartFit:
    block, started = start_block(part, target_for(part, text, None, registry), 0)
    entering, leaving = part.part.entering, part.part.leaving
    error = float(relative_error(block(entering)[None], leaving[None])[0]) if started == "closed form" else None
    return PartFit(
        part.part.path,
        type(part.part.module).__name__,
        (parameters(part.part.module), parameters(block)),
        count(lambda: block(entering[:1])),
        started,
        error,
    )
