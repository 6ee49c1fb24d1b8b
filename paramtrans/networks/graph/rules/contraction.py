"""Sums of products: layers, matrix products, attention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from string import ascii_letters
from typing import Any

from torch.fx import Node

from paramtrans.networks.graph.labels import Label, align, axes_of, disjoint, summed_labels
from paramtrans.networks.graph.operators import (
    Contraction,
    Rule,
    Rules,
    Shape,
    State,
    Value,
    name_of,
    pin_all,
    spread,
)

rule = Rules[Rule]()
"""The rules of this file."""


def contract(
    state: State, node: Node, operands: Sequence[tuple[int, Value, Sequence[int]]], ndim: int, over: Sequence[int]
) -> list[Label]:
    """Labels of a product of operands that is summed over some axes, which stay with size 1.

    Args:
        state: Is added to.
        node: The operation.
        operands: For each, its position among the arguments, its value, and its axes in a joint space.
        ndim: Axes of the joint space.
        over: Axes of the joint space that are summed over.
    """
    placed = []
    for position, value, axes in operands:
        shape = [1] * ndim
        for axis, size in zip(axes, value.shape, strict=True):
            shape[axis] = size
        labels = []
        for label in value.labels:
            raised = [1] * ndim
            order = sorted(range(len(axes)), key=lambda i: axes[i])
            for axis, size in zip(axes, label.shape, strict=True):
                raised[axis] = size
            labels.append(label.permute(order).reshape(raised))
            if {axes[axis] for axis in axes_of(label)} & set(over):
                factors = [factor.tensor for _, factor, _ in operands if factor is not value]
                weight = factors[0] if len(factors) == 1 else None
                state.contractions.append(Contraction(node, position, label, weight))
        placed.append((shape, labels))
    return summed_labels(state.facts, align(state.facts, placed), over)


@rule("linear")
def linear(state: State, node: Node, args: list[Any], kwargs: dict[str, Any]) -> list[Label]:
    """A Linear sums over the last axis of its input."""
    value, weight = args[0], args[1]
    ndim = len(value.shape) + 1
    out, read = ndim - 2, ndim - 1
    operands = [(0, value, [*range(ndim - 2), read]), (1, weight, [out, read])]
    labels = [label.squeeze(read) for label in contract(state, node, operands, ndim, [read])]
    bias = args[2] if len(args) > 2 else kwargs.get("bias")
    shape = (*value.shape[:-1], weight.shape[0])
    return _plus(state, shape, labels, bias)


def _plus(state: State, shape: Shape, labels: list[Label], bias: Any, axis: int = -1) -> list[Label]:
    """Labels of a sum with a vector along an axis."""
    labels = [label for label in labels if axes_of(label)]
    if not isinstance(bias, Value):
        return labels
    added = spread(bias, len(shape), axis) if len(bias.shape) == 1 else bias
    return align(state.facts, [(shape, labels), (added.shape, added.labels)])


@rule("conv1d conv2d conv3d convolution conv_transpose1d conv_transpose2d conv_transpose3d")
def convolution(state: State, node: Node, args: list[Any], kwargs: dict[str, Any]) -> list[Label]:
    """A convolution sums over channels, group by group where it has several; transposed ones the other way round."""
    entering_value, weight, name = args[0], args[1], name_of(node)
    bias = args[2] if len(args) > 2 else kwargs.get("bias")
    transposed = "transpose" in name or (name == "convolution" and bool(args[6]))
    groups = kwargs.get("groups", _groups(name, args, transposed))
    shape = tuple(node.meta["val"].shape)
    batched = len(entering_value.shape) == len(weight.shape)
    entering_value = _whole_channels(state, entering_value) if batched else entering_value
    for label in entering_value.labels:
        if axes_of(label) != ((1,) if batched else (0,)) or not batched:
            state.facts.pin(label)
    for label in weight.labels:
        if set(axes_of(label)) - {0, 1}:
            state.facts.pin(label)
    entering = [label.flatten() for label in entering_value.labels if axes_of(label) == (1,)] if batched else []
    rows = [label.flatten() for label in weight.labels if axes_of(label) == (0,)]
    columns = [label.flatten() for label in weight.labels if axes_of(label) == (1,)]
    read, written = (rows, columns) if transposed else (columns, rows)
    size, out = entering_value.shape[1 if batched else 0], shape[1 if batched else 0]
    # The joint space: groups × outputs of one × inputs of one.
    inputs, outputs = size // groups, out // groups
    x = Value((groups, 1, inputs), [label.view(groups, 1, inputs) for label in entering])
    if transposed:
        w = Value((groups, outputs, inputs), [label.view(groups, 1, inputs) for label in read])
        w.labels += [label.view(1, outputs, 1) for label in written]
    else:
        w = Value((groups, outputs, inputs), [label.view(1, 1, inputs) for label in read])
        w.labels += [label.view(groups, outputs, 1) for label in written]
    x.labels, w.labels = ([label for label in operand.labels if axes_of(label)] for operand in (x, w))
    if entering and groups < size:
        state.contractions.append(Contraction(node, 0, entering_value.labels[0], weight.tensor))
    joint = align(state.facts, [(x.shape, x.labels), (w.shape, w.labels)])
    remaining = summed_labels(state.facts, joint, [2]) if inputs > 1 else joint
    full = [label.expand(groups, outputs, 1).reshape(-1) for label in remaining]
    labels = disjoint(state.facts, [label.view(1, -1, *[1] * (len(shape) - 2)) for label in full]) if batched else []
    if not batched:
        for label in full:
            state.facts.pin(label)
    return _plus(state, shape, labels, bias, 1 if batched else 0)


def _whole_channels(state: State, value: Value) -> Value:
    """What a convolution reads, where units are parts of its channels, as behind a pixel shuffle: these go together."""
    labels = []
    for label in value.labels:
        if (axes := axes_of(label))[:1] == (1,) and len(axes) > 1:
            state.facts.tie(label, axes[1:])
            label = label[(slice(None), slice(None), *[slice(1)] * (label.ndim - 2))]
        labels.append(label)
    return replace(value, labels=labels)


def _groups(name: str, args: list[Any], transposed: bool) -> int:
    position = 8 if name == "convolution" else 6
    return int(args[position]) if len(args) > position else 1


@rule("matmul bmm mm mv dot")
def matmul(state: State, node: Node, args: list[Any], kwargs: dict[str, Any]) -> list[Label]:
    """A matrix product sums over the last axis of its first operand."""
    return _product(state, node, (0, args[0]), (1, args[1]))


def _product(state: State, node: Node, first: tuple[int, Value], second: tuple[int, Value]) -> list[Label]:
    left, right = first[1], second[1]
    if len(left.shape) < 2 or len(right.shape) < 2:
        return pin_all(state, node, [left, right], {})
    batch = max(len(left.shape), len(right.shape)) - 2
    rows, columns, read = batch, batch + 1, batch + 2
    operands = [
        (first[0], left, [*range(batch - len(left.shape) + 2, batch), rows, read]),
        (second[0], right, [*range(batch - len(right.shape) + 2, batch), read, columns]),
    ]
    labels = contract(state, node, operands, batch + 3, [read])
    return [label.squeeze(read) for label in labels if axes_of(label)]


@rule("addmm baddbmm addbmm")
def addmm(state: State, node: Node, args: list[Any], kwargs: dict[str, Any]) -> list[Label]:
    """A matrix product with something added."""
    labels = _product(state, node, (1, args[1]), (2, args[2]))
    shape = tuple(node.meta["val"].shape)
    return align(state.facts, [(shape, labels), (args[0].shape, args[0].labels)])


@rule("einsum")
def einsum(state: State, node: Node, args: list[Any], kwargs: dict[str, Any]) -> list[Label]:
    """Letters that the result does not have are summed over."""
    values = list(args[1])
    equation = _spelled_out(args[0].replace(" ", ""), [len(value.shape) for value in values])
    inputs, _, output = equation.partition("->")
    terms = inputs.split(",")
    letters = sorted({letter for term in terms for letter in term})
    if any(len({*term}) < len(term) for term in terms):
        return pin_all(state, node, args, kwargs)
    order = [*output, *(letter for letter in letters if letter not in output)]
    operands = [(i, v, [order.index(c) for c in term]) for i, (v, term) in enumerate(zip(values, terms, strict=True))]
    labels = contract(state, node, operands, len(order), range(len(output), len(order)))
    if len(order) > len(output):
        labels = [label.flatten(len(output)).squeeze(-1) for label in labels]
    return [label for label in labels if axes_of(label)]


def _spelled_out(equation: str, axes: Sequence[int]) -> str:
    """An equation with letters for the axes that dots stand for, and with its result.

    Args:
        equation: Of `einsum`, without blanks.
        axes: How many axes each operand has.
    """
    inputs, arrow, output = equation.partition("->")
    terms = inputs.split(",")
    dots = [count - len(term) + 3 if "..." in term else 0 for term, count in zip(terms, axes, strict=True)]
    free = [letter for letter in ascii_letters if letter not in equation]
    of_dots = "".join(free[: max(dots)])
    if not arrow:
        letters = sorted({letter for letter in inputs if letter.isalpha() and inputs.count(letter) == 1})
        output = ("..." if "..." in inputs else "") + "".join(letters)
    terms = [term.replace("...", of_dots[len(of_dots) - count :]) for term, count in zip(terms, dots, strict=True)]
    return f"{','.join(terms)}->{output.replace('...', of_dots)}"


@rule("scaled_dot_product_attention")
def attention(state: State, node: Node, args: list[Any], kwargs: dict[str, Any]) -> list[Label]:
    """Scores sum over the axis of queries and keys, the result over that of tokens; tokens are pinned."""
    query, key, value = args[:3]
    mask = args[3] if len(args) > 3 else kwargs.get("attn_mask")
    grouped = len(query.shape) > 2 and key.shape[-3] not in (1, query.shape[-3])  # one key head is for any number
    repeated = query.shape[-3] // key.shape[-3] if grouped else 1
    if repeated > 1:
        key, value = _repeated(key, repeated), _repeated(value, repeated)
    n = len(query.shape) - 2
    batch, rows, read, wide, inner = list(range(n)), n, n + 1, n + 2, n + 3
    operands = [(0, query, [*batch, rows, inner]), (1, key, [*batch, read, inner])]
    scores = [label.squeeze(inner).squeeze(wide) for label in contract(state, node, operands, n + 4, [inner])]
    shape = (*query.shape[:-1], key.shape[-2])
    if isinstance(mask, Value):
        scores = align(state.facts, [(shape, scores), (mask.shape, mask.labels)])
    for label in scores:
        if len(shape) - 1 in axes_of(label):
            state.facts.pin(label)
    operands = [(-1, Value(shape, scores), [*batch, rows, read]), (2, value, [*batch, read, wide])]
    weighted = contract(state, node, operands, n + 3, [read])
    return [label.squeeze(read) for label in weighted if axes_of(label)]


def _repeated(value: Value, times: int) -> Value:
    """Keys or values of grouped queries, each head for all queries of its group."""
    shape = (*value.shape[:-3], value.shape[-3] * times, *value.shape[-2:])
    labels = [label.repeat_interleave(times, -3) if label.shape[-3] > 1 else label for label in value.labels]
    return Value(shape, labels)
