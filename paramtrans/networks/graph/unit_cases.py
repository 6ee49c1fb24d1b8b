"""What translators are shown of each group of units, in a pass of the untouched network; `Translator.keep` decides."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

from paramtrans.api.units import Reading, UnitCase
from paramtrans.networks.forward.attention import with_plain_attention
from paramtrans.networks.forward.examples import Examples
from paramtrans.networks.forward.lockstep import Lockstep
from paramtrans.networks.graph.examples import forward_pass, read_values, row_pieces
from paramtrans.networks.graph.groups import Analysis, NamedGroup
from paramtrans.networks.graph.limits import limited
from paramtrans.networks.graph.proof import named_tensors
from paramtrans.networks.graph.readers import ReaderLayer, Rows, batch_norm_gain
from paramtrans.ops.agreement import disagreement
from paramtrans.ops.directions import main_directions
from paramtrans.ops.few_rows import FewRows
from paramtrans.ops.halves import Halves
from paramtrans.ops.views import Moments, View, centred, plain
from paramtrans.utils import memory

MOST_VALUES = 4096
"""Values of the units that translators are shown where a layer reads more than there are rows."""

Choose = Callable[[NamedGroup, UnitCase], Tensor | None]
"""Which units of a group stay; None for one that stays as it is."""


@torch.no_grad()
def choose_units(
    analysis: Analysis, counts: Mapping[NamedGroup, int], choose: Choose, examples: Examples | None, seed: int = 0
) -> dict[NamedGroup, Tensor]:
    """The units that stay of each group, by what the layers that read it give in the untouched network.

    Args:
        analysis: Of the untouched network.
        counts: For each group, how many units stay.
        choose: The translator.
        examples: Calibration inputs; None for a translator that looks at parameters alone.
        seed: Draws rows, where there are many.

    Returns:
        Numbers of units, `[count]`; groups that stay as they are are left out.
    """
    tensors = named_tensors(analysis.network)
    retained: dict[NamedGroup, Tensor | None] = {}
    waiting = {group: {layer.weight for layer in group.readers} for group in counts}
    readings: dict[NamedGroup, list[Reading]] = {group: [] for group in counts}

    def decide(group: NamedGroup) -> None:
        case = unit_case(analysis, tensors, group, counts[group], readings.pop(group))
        retained[group] = choose(group, case)

    if examples is not None:
        layers = {layer.weight: layer for group in counts for layer in group.readers}
        forwards = [forward_pass(analysis.network, batch.inputs, tensors, layers) for batch in examples.passed_here]
        halves: dict[str, Halves] = {}
        times_passed = dict.fromkeys(layers, 0)
        with with_plain_attention(analysis.network), Lockstep(forwards) as passes:
            for calls in passes.layers():
                name = calls[0].layer
                times_passed[name] += 1
                pieces = row_pieces(calls, examples, read_values(tensors[name], layers[name]), seed)
                _add(halves.setdefault(name, Halves()), pieces, examples)
                memory.give_back()
                if times_passed[name] < layers[name].times:
                    continue
                halves[name].add_up(examples.processes, tensors[name].device)
                reading_groups = [group for group in counts if name in waiting[group]]
                for group in reading_groups:
                    waiting[group].discard(name)
                    readings[group].append(reading_of(group, layers[name], halves[name], tensors, examples.total))
                del halves[name]  # as large as what is decided by
                memory.give_back()
                for group in reading_groups:
                    if not waiting[group]:
                        decide(group)
                if len(retained) == len(counts):
                    break  # what the network does behind the last of the layers is of no use
    for group in counts:
        if group not in retained:
            decide(group)
    return {group: units for group in counts if (units := retained[group]) is not None}


def unit_case(
    analysis: Analysis, tensors: Mapping[str, Tensor], group: NamedGroup, count: int, readings: Iterable[Reading]
) -> UnitCase:
    """What a translator is shown of a group.

    Args:
        analysis: Of the untouched network.
        tensors: Its parameters and buffers by name.
        group: The group.
        count: How many units are to stay.
        readings: The layers that read it.
    """
    weights = _weights(group, tensors)
    sums_over = tuple(axis_of in analysis.program.summed_axes for axis_of, _ in weights)
    parts = tuple(part for _, part in weights)
    return UnitCase(parts, count, tuple(readings), group.units.cells, sums_over, group.width)


def _add(halves: Halves, pieces: Iterable[Rows], examples: Examples) -> None:
    """Add all rows but those of examples kept aside, by which units are not chosen either."""
    sides = ((piece, piece.output()) for piece in pieces)
    for (piece, output), scale in limited(sides, lambda side: side[1], examples.processes):
        for half in range(2):
            in_half = ~examples.aside(piece.example) & (piece.example % 2 == half)
            if in_half.any():
                halves.add_rows(half, piece.read[in_half], output[in_half], scale[in_half])


def reading_of(
    group: NamedGroup, layer: ReaderLayer, halves: Halves, tensors: Mapping[str, Tensor], total: int
) -> Reading:
    """A layer's equations, as far as they are about the units of a group.

    Args:
        group: The group.
        layer: A layer that reads it.
        halves: The equations of all that it reads.
        tensors: Parameters and buffers of the network by name.
        total: How many examples they are of.
    """
    weight, matrices = tensors[layer.weight], halves.total()
    matrix = weight.flatten(1).mT if layer.axis == 1 else weight
    values = values_of(group, layer, weight)
    is_other = torch.ones(len(matrix), dtype=torch.bool)
    is_other[values] = False
    view: View = centred if layer.bias is not None or layer.mean is not None else plain
    viewed = view(matrices)
    weights = matrix[values]
    gain = batch_norm_gain(layer, tensors)
    if gain is not None:
        viewed = viewed.scaled(gain)
        weights = weights * gain.to(weights)
    remaining = viewed.without(is_other.nonzero()[:, 0], values)
    basis = _basis(weights, len(group)) if isinstance(remaining, FewRows) else None
    if basis is not None:
        remaining = remaining.combined(basis)
        weights = torch.einsum("uvo,uvr->uro", weights.to(basis).unflatten(0, basis.shape[:2]), basis).flatten(0, 1)

    def of_units(half: Moments) -> Moments:
        of_half = view(half).values(values)
        return of_half if basis is None else of_half.combined(basis)

    doubt = disagreement(of_units, halves, weights[None], total)
    sums = remaining.gram_matrices(rounded=True)
    return Reading(sums.gram[0], sums.cross[0], sums.power[0], weights, None if doubt is None else float(doubt))


def _basis(weights: Tensor, units: int) -> Tensor | None:
    """Combinations of each unit's values that translators are shown instead, where the values are too many."""
    rank = max(1, MOST_VALUES // units)
    return main_directions(weights, units, rank) if rank * units < len(weights) else None


def values_of(group: NamedGroup, layer: ReaderLayer, weight: Tensor) -> Tensor:
    """Numbers of the values that a layer reads of a group, unit by unit.

    Args:
        group: The group.
        layer: The layer.
        weight: Its weight.
    """
    [unit_axis] = [axis for axis in group.units.axes if (axis.tensor, axis.axis) == (layer.weight, layer.axis)]
    kernel = weight[0, 0].numel() if layer.axis == 1 else 1
    return (unit_axis.indices[..., None] * kernel + torch.arange(kernel)).flatten()


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
