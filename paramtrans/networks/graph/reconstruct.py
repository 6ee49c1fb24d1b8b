"""Units chosen and what reads them solved for, layer by layer, in passes of the untouched and the smaller network.

Least-squares reconstruction: each layer that reads units is given the weights with which it gives, for what reaches it
in the smaller network, what it gave in the untouched one. The closed form of Optimal Brain Surgeon (Hassibi and Stork
1993) for groups of weights; GRAIL (arXiv 2602.23795) and CORP (arXiv 2602.05243) are the same by other names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from paramtrans.networks.forward.examples import Examples
from paramtrans.networks.forward.lockstep import Call, Lockstep
from paramtrans.networks.graph.capture import tensors_of
from paramtrans.networks.graph.examples import forward_pass, read_values, row_pieces
from paramtrans.networks.graph.groups import Analysis, NamedGroup
from paramtrans.networks.graph.narrow import Kept
from paramtrans.networks.graph.proof import named_tensors
from paramtrans.networks.graph.readers import ReaderLayer
from paramtrans.ops.least_squares import GramMatrices, Halves, View


@dataclass
class Reconstructed:
    """How far the smaller network is from the untouched one on examples that were kept aside."""

    errors: dict[str, float] = field(default_factory=dict)
    """For each layer that was solved for, by its weight: squared error of what it gives, relative to its variance."""
    output: float | None = None
    """The same of the network's first output."""
    held_out: bool = False
    """Whether errors are of examples kept aside; else of those that were fitted."""


@dataclass(frozen=True)
class _Networks:
    """Tensors of the untouched and of the smaller network, and what stays of each."""

    before: Mapping[str, Tensor]
    after: Mapping[str, Tensor]
    kept: Kept


@torch.no_grad()
def reconstruct(
    analysis: Analysis,
    small: nn.Module,
    kept: Mapping[NamedGroup, Tensor],
    examples: Examples,
    solve: bool,
    ridge: float | None = None,
    seed: int = 0,
    advance: Callable[[str], None] = lambda _: None,
) -> Reconstructed:
    """A smaller network, which has these units alone, with what reads them solved for, in place, where `solve` says so.

    One pass of the untouched and one of the smaller network, which stop together at each layer that reads units.
    """
    result = Reconstructed()
    before, after = named_tensors(analysis.network), named_tensors(small)
    networks = _Networks(before, after, analysis.removal(kept).kept())
    layers = {layer.weight: layer for group in kept for layer in group.readers}
    forwards = [forward_pass(analysis.network, batch, before, layers) for batch in examples.batches]
    forwards += [forward_pass(small, batch, after, layers) for batch in examples.batches]
    half = len(examples.sizes)
    with Lockstep(forwards) as passes:
        for calls in passes.layers():
            layer = layers[calls[0].layer]
            error = _solve_layer(
                layer, calls[:half], calls[half:], examples, networks, solve and layer.times == 1, ridge, seed
            )
            result.errors[layer.weight] = max(error, result.errors.get(layer.weight, 0.0))
            advance(layer.weight)
    result.held_out = bool(examples.aside(torch.arange(examples.total)).any())
    result.output = _output_error(passes.outputs[:half], passes.outputs[half:], examples)
    return result


def _solve_layer(
    layer: ReaderLayer,
    before: Sequence[Call],
    after: Sequence[Call],
    examples: Examples,
    networks: _Networks,
    solve: bool,
    ridge: float | None,
    seed: int,
) -> float:
    """Write a layer of the smaller network anew; its error on examples kept aside."""
    weight = networks.after[layer.weight]
    axes = networks.kept.get(layer.weight)
    outputs = None if axes is None else axes[1 - layer.axis]
    fit, aside = Halves(), Halves()
    values = read_values(before[0].args[before[0].position], layer)
    pairs = zip(row_pieces(before, examples, values, seed), row_pieces(after, examples, values, seed), strict=True)
    for (_, wanted, number), (read, _, _) in pairs:
        wanted = wanted if outputs is None else wanted[:, outputs.to(wanted.device)]
        out = examples.aside(number)
        for half in range(2):
            some = ~out & (number % 2 == half)
            if some.any():
                fit.add_rows(half, read[some], wanted[some])
        if out.any():
            aside.add_rows(0, read[out], wanted[out])
    constant = layer.bias is not None or layer.mean is not None
    view: View = GramMatrices.whole if constant else GramMatrices.plain
    start = (weight.flatten(1).mT if layer.axis == 1 else weight)[None].double()
    start = matrix = torch.cat([start, torch.zeros_like(start[:, :1])], dim=1) if constant else start
    strength = matrix.new_full((1,), ridge or 0.0)
    total = fit.total()
    if solve:
        strength = fit.ridge(view, start) if ridge is None else strength
        matrix = view(total).ridge(start, strength)
        weights = matrix[:, :-1] if constant else matrix
        _write(layer, weights[0], matrix[0, -1] if constant else None, networks, outputs)
    if not aside.has_rows and fit.two and solve:  # each half under the solution for the other one
        pairs_of_halves = (fit.halves, fit.halves[::-1])
        errors = (_error(judged, view, view(fitted).ridge(start, strength)) for fitted, judged in pairs_of_halves)
        return sum(errors) / 2
    return _error(aside.total() if aside.has_rows else total, view, matrix)


def _write(
    layer: ReaderLayer, matrix: Tensor, constant: Tensor | None, networks: _Networks, outputs: Tensor | None
) -> None:
    """Write a layer's weight, and what stands beside it: the untouched network's with a constant."""
    weight = networks.after[layer.weight]
    weight.data.copy_((matrix.mT if layer.axis == 1 else matrix).reshape(weight.shape))
    name = layer.bias or layer.mean
    if constant is None or name is None:
        return
    own, before = networks.after[name], networks.before[name].detach()
    before = before if outputs is None else before[outputs.to(before.device)]
    own.data.copy_(before + (constant if layer.bias is not None else -constant).to(before))


def _error(moments: GramMatrices, view: View, matrix: Tensor) -> float:
    """Squared error of what a layer gives, relative to its variance."""
    seen = view(moments)
    squared = ((matrix * (seen.gram @ matrix - 2 * seen.cross)).sum(1) + seen.power).sum()
    return float(squared / moments.centred().power.sum().clamp_min(1e-30))


def _output_error(before: Sequence[Any], after: Sequence[Any], examples: Examples) -> float | None:
    """Squared error of the first output, relative to its variance over examples kept aside."""
    pairs = [(tensors_of(one)[:1], tensors_of(other)[:1]) for one, other in zip(before, after, strict=True)]
    if not all(
        one and one[0].is_floating_point() and len(one[0]) == size
        for (one, _), size in zip(pairs, examples.sizes, strict=True)
    ):
        return None
    numbers = torch.arange(examples.total).split(list(examples.sizes))
    aside = [examples.aside(own) for own in numbers]
    some = aside if any(bool(own.any()) for own in aside) else [torch.ones_like(own) for own in aside]
    count, total, square, error = 0, 0.0, 0.0, 0.0
    for (one, other), own in zip(pairs, some, strict=True):
        if own.any():
            wanted, found = one[0][own].double(), other[0][own].double()
            error += float((found - wanted).square().sum())
            count, total, square = (
                count + wanted.numel(),
                total + float(wanted.sum()),
                square + float(wanted.square().sum()),
            )
    return error / max(square - total * total / max(count, 1), 1e-30)
