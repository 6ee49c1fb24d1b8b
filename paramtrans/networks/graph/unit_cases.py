"""What translators are shown of each group of units, in a pass of the untouched network; `Translator.keep` decides."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

from paramtrans.api.units import Reading, UnitCase
from paramtrans.networks.forward.examples import Examples
from paramtrans.networks.forward.lockstep import Lockstep
from paramtrans.networks.graph.examples import Piece, forward_pass, read_values, row_pieces
from paramtrans.networks.graph.groups import Analysis, NamedGroup
from paramtrans.networks.graph.proof import named_tensors
from paramtrans.networks.graph.readers import ReaderLayer
from paramtrans.networks.graph.summed import summed
from paramtrans.ops.agreement import disagreement
from paramtrans.ops.least_squares import GramMatrices, Halves, View

Choose = Callable[[NamedGroup, UnitCase], Tensor | None]
"""Which units of a group stay; None for one that stays as it is."""


@torch.no_grad()
def choose_units(
    analysis: Analysis, counts: Mapping[NamedGroup, int], choose: Choose, examples: Examples | None, seed: int = 0
) -> dict[NamedGroup, Tensor]:
    """For each group the units that stay, by what the layers that read it give in the untouched network; groups that
    stay as they are are left out."""
    tensors = named_tensors(analysis.network)
    kept: dict[NamedGroup, Tensor | None] = {}
    names = analysis.program.names
    sums = {summed(node, names) for node in analysis.program.nodes}
    waiting = {group: {layer.weight for layer in group.readers} for group in counts}
    readings: dict[NamedGroup, list[Reading]] = {group: [] for group in counts}

    def decide(group: NamedGroup) -> None:
        weights = _weights(group, tensors)
        own = tuple(place in sums for place, _ in weights)
        width = max(axis.indices.shape[1] for axis in group.units.axes)
        parts, read = tuple(part for _, part in weights), tuple(readings.pop(group))
        kept[group] = choose(group, UnitCase(parts, counts[group], read, group.units.cells, own, width))

    if examples is not None:
        layers = {layer.weight: layer for group in counts for layer in group.readers}
        forwards = [forward_pass(analysis.network, batch, tensors, layers) for batch in examples.batches]
        seen: dict[str, Halves] = {}
        passed = dict.fromkeys(layers, 0)
        with Lockstep(forwards) as passes:
            for calls in passes.layers():
                name = calls[0].layer
                passed[name] += 1
                pieces = row_pieces(calls, examples, read_values(tensors[name], layers[name]), seed)
                _add(seen.setdefault(name, Halves()), pieces, examples)
                if passed[name] < layers[name].times:
                    continue
                for group in counts:
                    if name in waiting[group]:
                        waiting[group].discard(name)
                        readings[group].append(_reading(group, layers[name], seen[name], tensors, examples.total))
                        if not waiting[group]:
                            decide(group)
                del seen[name]
    for group in counts:
        if group not in kept:
            decide(group)
    return {group: units for group in counts if (units := kept[group]) is not None}


def _add(halves: Halves, pieces: Iterable[Piece], examples: Examples) -> None:
    """Add all rows but those of examples kept aside, by which units are not chosen either."""
    for read, given, number in pieces:
        for half in range(2):
            some = ~examples.aside(number) & (number % 2 == half)
            if some.any():
                halves.add_rows(half, read[some], given[some])


def _reading(
    group: NamedGroup, layer: ReaderLayer, halves: Halves, tensors: Mapping[str, Tensor], total: int
) -> Reading:
    """A layer's equations, as far as they are about the units of a group; of as many examples in `total`."""
    weight, moments = tensors[layer.weight], halves.total()
    matrix = weight.flatten(1).mT if layer.axis == 1 else weight
    values = _values(group, layer, weight)
    others = torch.ones(len(matrix), dtype=torch.bool)
    others[values] = False
    view: View = GramMatrices.centred if layer.bias is not None or layer.mean is not None else GramMatrices.plain
    seen = view(moments)
    weights = matrix[values]
    if layer.gain is not None:
        gain = _gain(layer.gain, tensors)
        seen = GramMatrices(seen.gram, seen.cross * gain, seen.power * gain.square())
        weights = weights * gain.to(weights)
    part = seen.without(others.nonzero()[:, 0], values)
    doubt = disagreement(lambda half: view(half).values(values), halves, weights[None], total)
    return Reading(part.gram[0], part.cross[0], part.power[0], weights, None if doubt is None else float(doubt))


def _gain(names: tuple[str | None, str, float], tensors: Mapping[str, Tensor]) -> Tensor:
    """What a BatchNorm multiplies each channel by."""
    scale, variance, eps = names
    gain = (tensors[variance].double() + eps).rsqrt()
    return gain if scale is None else gain * tensors[scale].double()


def _values(group: NamedGroup, layer: ReaderLayer, weight: Tensor) -> Tensor:
    """Numbers of the values that a layer reads of a group, unit by unit."""
    [own] = [axis for axis in group.units.axes if (axis.tensor, axis.axis) == (layer.weight, layer.axis)]
    kernel = weight[0, 0].numel() if layer.axis == 1 else 1
    return (own.indices[..., None] * kernel + torch.arange(kernel)).flatten()


def _weights(group: NamedGroup, tensors: Mapping[str, Tensor]) -> list[tuple[tuple[str, int], Tensor]]:
    """The part of each weight (of two axes or more) that belongs to each unit, with the weight's name and axis."""
    parts = []
    for axis in group.units.axes:
        tensor = tensors[axis.tensor]
        if tensor.ndim > 1 and tensor.is_floating_point():
            picked = tensor.detach().movedim(axis.axis, 0)[axis.indices.flatten().to(tensor.device)]
            parts.append(((axis.tensor, axis.axis), picked.reshape(len(group), -1).float().cpu()))
    if not parts:
        axis = group.units.axes[0]
        picked = tensors[axis.tensor].detach()[axis.indices.flatten()]
        parts = [((axis.tensor, axis.axis), picked.reshape(len(group), -1).float())]
    return parts
