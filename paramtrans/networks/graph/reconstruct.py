"""Units chosen and what reads them solved for, layer by layer, in passes of the untouched and the smaller network.

Least-squares reconstruction: each layer that reads units is given the weights with which it gives, for what reaches it
in the smaller network, what it gave in the untouched one. The closed form of Optimal Brain Surgeon (Hassibi and Stork,
1992, Eq. 5) for groups of weights; GRAIL (arXiv 2602.23795) and CORP (arXiv 2602.05243) are the same by other names.
Where the layer's output is added to what was computed before, as in every residual block, it is the sum that is to be
what it was: the layer makes up for what the sum's other part has lost before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from paramtrans.networks.forward.activations import Inputs, call, first_examples, input_tensors
from paramtrans.networks.forward.attention import with_plain_attention
from paramtrans.networks.forward.examples import Examples
from paramtrans.networks.forward.lockstep import AddedTo, Call, Forward, Lockstep, Place
from paramtrans.networks.forward.outputs import tensors_in
from paramtrans.networks.forward.replays import Replay, replays_of
from paramtrans.networks.forward.sums import added_to, values_at
from paramtrans.networks.graph.equations import equations
from paramtrans.networks.graph.examples import forward_pass, read_values, row_pieces
from paramtrans.networks.graph.groups import Analysis, NamedGroup
from paramtrans.networks.graph.narrow import Retained
from paramtrans.networks.graph.proof import named_tensors
from paramtrans.networks.graph.readers import ReaderLayer, batch_norm_gain
from paramtrans.networks.graph.waiting import Waiting
from paramtrans.ops.distances import RelativeError
from paramtrans.ops.views import Moments, View, plain, whole
from paramtrans.utils import memory

MOST_SHAPES = 4
"""Shapes of batches up to which later values are computed ahead; of each, one batch is passed to see whether that is
right."""
SPREAD = 1e-12
"""Variance of what a layer gives, relative to its error, that is rounding: it gives the same for all inputs."""


@dataclass
class Reconstructed:
    """How far the smaller network is from the untouched one on examples that were kept aside."""

    errors: dict[str, float] = field(default_factory=dict)
    """For each layer that was solved for, by its weight: squared error of what it gives, or of the sum that this goes
    into, relative to its variance."""
    output: float | None = None
    """The same of the network's first output, where it was asked for and can be compared."""
    held_out: bool = False
    """Whether errors are of examples kept aside; else of those that were fitted."""


@dataclass(frozen=True)
class _Networks:
    """Tensors of the untouched and of the smaller network, and what stays of each."""

    before: Mapping[str, Tensor]
    after: Mapping[str, Tensor]
    retained: Retained


@torch.no_grad()
def reconstruct(
    analysis: Analysis,
    small: nn.Module,
    retained: Mapping[NamedGroup, Tensor],
    examples: Examples,
    solve: bool,
    ridge: float | None = None,
    seed: int = 0,
    outputs: bool = False,
    waiting: Waiting | None = None,
    advance: Callable[[str], None] = lambda _: None,
) -> Reconstructed:
    """Solve for the layers that read units, and measure how far the smaller network is from the untouched one.

    One pass of each network; the passes stop together at each layer that reads units, and end at the last.

    Args:
        analysis: Of the untouched network.
        small: The smaller network, which is written to.
        retained: For each group the numbers of the units that stay, `[count]`.
        examples: Calibration inputs; nothing is fitted to those kept aside. With `outputs` they are of one process.
        solve: Whether layers are solved for; else errors alone are measured.
        ridge: Strength of the ridge; None: chosen by two-fold cross-validation.
        seed: Draws rows, where there are many.
        outputs: Whether what the networks give is compared as well; else they run no further than to the last of the
            layers, and their outputs are never held.
        waiting: Groups whose units are chosen on the way, which are all in the smaller network; those that go are no
            longer read in the end.
        advance: Is called with the weight's name of each layer.
    """
    assert not outputs or examples.processes.size == 1
    result = Reconstructed()
    original_tensors, small_tensors = named_tensors(analysis.network), named_tensors(small)
    networks = _Networks(original_tensors, small_tensors, analysis.removal(retained).retained())
    groups = [*retained, *(waiting.counts if waiting else ())]
    layers = {layer.weight: layer for group in groups for layer in (*group.readers, *group.writers)}
    few = first_examples(examples.first, 2)
    weights = {id(original_tensors[name]): name for name in layers}
    with with_plain_attention(analysis.network):
        sums = added_to(lambda: call(analysis.network, few), weights)
    sides = ((analysis.network, original_tensors), (small, small_tensors))
    replays = [_replays(network, tensors, examples, sums) for network, tensors in sides]
    forwards = [
        forward_pass(network, batch.inputs, tensors, layers, sums, replays_of_side)
        for (network, tensors), replays_of_side in zip(sides, replays, strict=True)
        for batch in examples.passed_here
    ]
    half, stops_left = len(forwards) // 2, sum(layer.times for layer in layers.values())
    with with_plain_attention(analysis.network, small), Lockstep(forwards) as passes:
        for calls in passes.layers():
            layer = layers[calls[0].layer]
            if layer.weight in sums and sums[layer.weight].later and not all(c.replayed for c in calls):
                _add_later(calls, forwards, sums[layer.weight])
            error = _solve_layer(
                layer, calls[:half], calls[half:], examples, networks, solve and layer.solvable, ridge, seed, waiting
            )
            if error is not None:
                result.errors[layer.weight] = max(error, result.errors.get(layer.weight, 0.0))
            advance(layer.weight)
            stops_left -= 1
            if not stops_left and not outputs:
                break
        if outputs:
            result.output = _output_error(passes.outputs[:half], passes.outputs[half:], examples)
    result.held_out = bool(examples.aside(torch.arange(examples.total)).any())
    return result


def _replays(
    network: nn.Module, tensors: Mapping[str, Tensor], examples: Examples, sums: Mapping[str, AddedTo]
) -> dict[Place, Replay]:
    """How later values follow in passes of a network that layers' outputs are added to."""
    few, shapes = first_examples(examples.first, 2), dict[object, Inputs]()
    for batch in examples.passed_here:
        shapes.setdefault(tuple(tensor.shape for tensor in input_tensors(batch.inputs).values()), batch.inputs)
    if len(shapes) > MOST_SHAPES:
        return {}
    checks = [partial(call, network, inputs) for inputs in shapes.values()]
    with with_plain_attention(network):
        return replays_of(partial(call, network, few), checks, sums.values(), tensors.values())


def _add_later(calls: Sequence[Call], forwards: Sequence[Forward], added: AddedTo) -> None:
    """Tell calls of a layer what is computed behind it and added to its output, by passes of their own to there."""
    for layer_call, forward in zip(calls, forwards, strict=True):
        if layer_call.replayed:
            continue
        values = values_at(forward.run, added.later)
        if values is None or (added.places and layer_call.added_to is None):
            layer_call.added_to = None
            continue
        known = [] if layer_call.added_to is None else [layer_call.added_to]
        layer_call.added_to = torch.stack([*known, *values]).sum(0)


def _solve_layer(
    layer: ReaderLayer,
    original_calls: Sequence[Call],
    small_calls: Sequence[Call],
    examples: Examples,
    networks: _Networks,
    solve: bool,
    ridge: float | None,
    seed: int,
    waiting: Waiting | None,
) -> float | None:
    """Write a layer of the smaller network anew; its error on examples kept aside."""
    weight = networks.after[layer.weight]
    axes = networks.retained.get(layer.weight)
    outputs = None if axes is None else axes[1 - layer.axis]
    values = read_values(original_calls[0].args[original_calls[0].position], layer)
    original = row_pieces(original_calls, examples, values, seed)
    smaller = row_pieces(small_calls, examples, values, seed)
    gain = batch_norm_gain(layer, networks.after)
    fit, aside = equations(original, smaller, examples, outputs, gain)
    memory.give_back()
    judged = aside if aside.rows.has_rows else fit
    constant = layer.bias is not None or layer.mean is not None
    view: View = whole if constant else plain
    stays = None if waiting is None else waiting.staying(layer, fit.rows, networks.after)
    if stays is not None:
        view = _of_some(view, stays)
    start = (weight.flatten(1).mT if layer.axis == 1 else weight)[None].double()
    start = start if stays is None else start[:, stays]
    start = matrix = torch.cat([start, torch.zeros_like(start[:, :1])], dim=1) if constant else start
    strength = matrix.new_full((1,), ridge or 0.0)
    if solve:
        strength = fit.rows.ridge(view, start, examples.processes) if ridge is None else strength
        matrix = examples.processes.follow(view(fit.rows.total()).ridge(start, strength).contiguous())
        weights = matrix[:, :-1] if constant else matrix
        _write(layer, weights[0], matrix[0, -1] if constant else None, networks, outputs, stays)
    if judged is fit and fit.rows.two and solve:  # each half under the solution for the other one
        pairs_of_halves = zip(fit.rows.halves, fit.rows.halves[::-1], strict=True)
        errors = [
            view(judging).squared_error(view(fitting).ridge(start, strength))[0] for fitting, judging in pairs_of_halves
        ]
        return _relative(errors[0] + errors[1], judged.variance(), gain)
    return _relative(view(judged.rows.total()).squared_error(matrix)[0], judged.variance(), gain)


def _of_some(view: View, values: Tensor) -> View:
    """The same of some of the values that are read, and of the constant."""

    def of_some(moments: Moments) -> Moments:
        return view(moments.values(torch.cat([values, values.new_tensor([moments.size - 1])])))

    return of_some


def _write(
    layer: ReaderLayer,
    matrix: Tensor,
    constant: Tensor | None,
    networks: _Networks,
    outputs: Tensor | None,
    stays: Tensor | None,
) -> None:
    """Write a layer's weight, with zeros for values that go, and what stands beside it: the untouched network's with a
    constant."""
    weight = networks.after[layer.weight]
    if stays is not None:
        count = weight.numel() // matrix.shape[1]
        matrix = matrix.new_zeros(count, matrix.shape[1]).index_copy(0, stays, matrix)
    weight.data.copy_((matrix.mT if layer.axis == 1 else matrix).reshape(weight.shape))
    name = layer.bias or layer.mean
    if constant is None or name is None:
        return
    tensor, original = networks.after[name], networks.before[name].detach()
    original = original if outputs is None else original[outputs.to(original.device)]
    tensor.data.copy_(original + (constant if layer.bias is not None else -constant).to(original))


def _relative(squared_error: Tensor, variance: Tensor, gain: Tensor | None) -> float | None:
    """Squared error over the variance, both behind a BatchNorm where there is one; None of a layer that gives the same
    for all inputs."""
    weights = torch.ones_like(variance) if gain is None else gain.square().to(variance)
    error, spread = float((weights * squared_error).sum()), float((weights * variance).sum())
    return None if spread < SPREAD * error else error / max(spread, 1e-30)


def _output_error(before: Sequence[Any], after: Sequence[Any], examples: Examples) -> float | None:
    """Relative error of the first output on examples kept aside; None where it cannot be said."""
    pairs = [
        (tensors_in(original_output)[:1], tensors_in(small_output)[:1])
        for original_output, small_output in zip(before, after, strict=True)
    ]
    if not all(
        original_output and original_output[0].is_floating_point() and len(original_output[0]) == size
        for (original_output, _), size in zip(pairs, examples.sizes, strict=True)
    ):
        return None
    numbers = torch.arange(examples.total).split(list(examples.sizes))
    aside = [examples.aside(numbers_of) for numbers_of in numbers]
    chosen = (
        aside
        if any(bool(numbers_of.any()) for numbers_of in aside)
        else [torch.ones_like(numbers_of) for numbers_of in aside]
    )
    error = RelativeError()
    for (original_output, small_output), numbers_of in zip(pairs, chosen, strict=True):
        if numbers_of.any():
            error.add(small_output[0][numbers_of], original_output[0][numbers_of])
    return error.value
