"""Operations that move elements: they run on labels as they do on values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.fx import Node
from torch.utils._pytree import tree_flatten, tree_map

from paramtrans.networks.graph.labels import Label, align, axes_of, disjoint, squeezed
from paramtrans.networks.graph.operators import (
    Rule,
    Rules,
    Shape,
    State,
    Value,
    name_of,
    pin_all,
)

rule = Rules[Rule]()
"""The rules of this file."""


@rule(
    "view reshape _unsafe_view permute transpose t numpy_T mT expand slice select split "
    "split_with_sizes chunk unbind flatten unflatten squeeze unsqueeze roll flip pixel_shuffle "
    "pixel_unshuffle index_select repeat repeat_interleave narrow movedim moveaxis swapaxes swapdims tile "
    "broadcast_to index channel_shuffle tensor_split diagonal unsafe_split unsafe_chunk rot90 adjoint "
    "mH matrix_H unfold hsplit vsplit"
)
def movement(state: State, node: Node, args: list[Any], kwargs: dict[str, Any]) -> Any:
    """The operation itself, run on labels."""
    value = args[0]
    several = isinstance(node.meta["val"], list | tuple)
    parts: list[list[Label]] = [[] for _ in node.meta["val"]] if several else [[]]
    concrete = tree_map(_concrete, (list(args[1:]), kwargs))
    if any(argument is _UNKNOWN for argument in tree_flatten(concrete)[0]):
        return _picked(state, node, args, kwargs)
    run: Callable[..., Any] = node.target  # type: ignore[assignment]
    for label in value.labels:
        moved = run(label.expand(value.shape).contiguous(), *concrete[0], **concrete[1])
        for part, label_of_part in zip(parts, moved if several else [moved], strict=True):
            part.append(squeezed(label_of_part))
    results = [disjoint(state.facts, part) for part in parts]
    if name_of(node) in SPLITTING:
        for result in results:
            _note_rows(state, result)
    return results if several else results[0]


@rule("view_as reshape_as expand_as")
def as_another(state: State, node: Node, args: list[Any], kwargs: dict[str, Any]) -> list[Label]:
    """A shape taken from another value: sizes of the two become smaller together."""
    value, shaped = args[:2]
    labels = value.labels
    if name_of(node) != "expand_as":
        moved = [label.expand(value.shape).reshape(shaped.shape) for label in labels]
        labels = disjoint(state.facts, [squeezed(label) for label in moved])
        _note_rows(state, labels)
    shape = value.shape if name_of(node) == "expand_as" else shaped.shape
    return align(state.facts, [(shape, labels), (shaped.shape, shaped.labels)])


SPLITTING = ("view", "reshape", "_unsafe_view", "unflatten")


def _note_rows(state: State, labels: list[Label]) -> None:
    """Where an axis was split into several, rows are something that may go as a whole."""
    for label in labels:
        axes = axes_of(label)
        if len(axes) > 1:
            state.facts.rows(label, axes[:1])


_UNKNOWN = object()


def _concrete(argument: Any) -> Any:
    if isinstance(argument, Value):
        return argument.known if argument.known is not None else _UNKNOWN
    return argument


def _picked(state: State, node: Node, args: list[Any], kwargs: dict[str, Any]) -> list[Label]:
    """Elements picked by numbers that depend on the inputs: axes picked along are pinned, others keep their labels."""
    value = args[0]
    if name_of(node) == "index_select":
        return _embedded(state, value, args[1] % len(value.shape), len(node.meta["val"].shape))
    if name_of(node) == "index" and isinstance(args[1], list | tuple):
        picked = [axis for axis, index in enumerate(args[1]) if index is not None]
        labels = []
        for label in value.labels:
            if set(axes_of(label)) & set(picked):
                state.facts.pin(label)
            elif max(axes_of(label), default=0) > max(picked) and picked == list(range(len(picked))):
                shift = len(node.meta["val"].shape) - label.ndim
                labels.append(label.reshape(*[1] * (len(picked) + shift), *label.shape[len(picked) :]))
            else:
                state.facts.pin(label)
        return labels
    return pin_all(state, node, args, kwargs)


def _embedded(state: State, value: Value, axis: int, ndim: int) -> list[Label]:
    labels = []
    for label in value.labels:
        if axis in axes_of(label):
            state.facts.pin(label)
        else:
            labels.append(label)
    return labels


@rule("gather take_along_dim")
def gather(state: State, node: Node, args: list[Any], kwargs: dict[str, Any]) -> list[Label]:
    """The axis that elements are gathered along is pinned."""
    value, axis = args[0], args[1] % len(args[0].shape)
    return _embedded(state, value, axis, len(value.shape))


@rule("embedding")
def embedding(state: State, node: Node, args: list[Any], kwargs: dict[str, Any]) -> list[Label]:
    """The rows of the table are pinned; its columns keep their units."""
    weight, numbers = args[0], args[1]
    labels = []
    for label in weight.labels:
        if 0 in axes_of(label):
            state.facts.pin(label)
        else:
            labels.append(label.reshape(*[1] * len(numbers.shape), -1))
    return labels


@rule("getitem")
def getitem(state: State, node: Node, args: list[Any], kwargs: dict[str, Any]) -> Any:
    """Is never called: `propagate` takes the item itself."""
    raise AssertionError("handled where values are kept")


@rule("cat concat concatenate stack hstack vstack")
def cat(state: State, node: Node, args: list[Any], kwargs: dict[str, Any]) -> list[Label]:
    """Units of values that are joined along another axis go together; those along the axis itself stay apart."""
    values, name = list(args[0]), name_of(node)
    ndim = max(len(value.shape) for value in values) + (name == "stack")
    dim = {"hstack": 1, "vstack": 0}.get(name, args[1] if len(args) > 1 else kwargs.get("dim", 0)) % ndim
    if name == "stack":
        values = [_unsqueezed(value, dim) for value in values]
    values = [value for value in values if len(value.shape) == ndim and value.shape[dim]]
    runs = {axes_of(label) for value in values for label in value.labels}
    result: list[Label] = []
    for run in sorted(runs):
        if not run:
            continue
        same_run = [next((label for label in value.labels if axes_of(label) == run), None) for value in values]
        other_labels = [label for value in values for label in value.labels if axes_of(label) != run]
        if any(set(axes_of(label)) & set(run) for label in other_labels):
            for label in [*other_labels, *(label for label in same_run if label is not None)]:
                state.facts.pin(label)
            return []
        if dim in run:
            full = [_filled(label, value.shape, run) for label, value in zip(same_run, values, strict=True)]
            result.append(torch.cat(full, dim))
        elif any(label is None for label in same_run):
            for label in same_run:
                if label is not None:
                    state.facts.pin(label)
        else:
            for label in same_run[1:]:
                state.facts.equate(same_run[0], label)  # type: ignore[arg-type]
            result.append(same_run[0])  # type: ignore[arg-type]
    return result


def _unsqueezed(value: Value, dim: int) -> Value:
    shape = (*value.shape[:dim], 1, *value.shape[dim:])
    return Value(shape, [label.unsqueeze(dim) for label in value.labels], None, None)


def _filled(label: Label | None, shape: Shape, run: Sequence[int]) -> Label:
    """A label over all of `run`; elements without one are pinned."""
    sizes = [size if axis in run else 1 for axis, size in enumerate(shape)]
    return torch.zeros(sizes, dtype=torch.long) if label is None else label.expand(sizes)
