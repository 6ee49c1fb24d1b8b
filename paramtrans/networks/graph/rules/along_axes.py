"""Operations along axes: sums and means, softmax, pooling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch.fx import Node

from paramtrans.networks.graph.labels import Label, align, axes_of, summed_labels
from paramtrans.networks.graph.operators import (
    Contraction,
    Rule,
    Rules,
    State,
    Value,
    name_of,
    reduced,
    tied,
    values_in,
)

rule = Rules[Rule]()
"""The rules of this file."""


def _dims(value: Value, dims: Any) -> list[int]:
    """Axes as numbers from 0; all where none is named."""
    if dims is None or dims == []:
        return list(range(len(value.shape)))
    listed = dims if isinstance(dims, list | tuple) else [dims]
    return [axis % max(1, len(value.shape)) for axis in listed]


@rule("softmax _softmax log_softmax _log_softmax cumsum cumprod logcumsumexp sort argsort topk")
def along_axis(state: State, node: Node, args: list[Any], kwargs: dict[str, Any]) -> Any:
    """Labels along the axis of a softmax, a running sum or a sort are pinned."""
    dim = args[2] if name_of(node) == "topk" and len(args) > 2 else kwargs.get("dim", args[1] if len(args) > 1 else -1)
    if name_of(node) in ("sort", "argsort"):
        dim = kwargs.get("dim", args[1] if len(args) > 1 and not isinstance(args[1], bool) else -1)
    axes = _dims(args[0], dim if name_of(node) != "topk" or len(args) > 2 else -1)
    for label in args[0].labels:
        if set(axes_of(label)) & set(axes):
            state.facts.pin(label)
    labels = [label for label in args[0].labels if not set(axes_of(label)) & set(axes)]
    return [labels, labels] if name_of(node) in ("sort", "topk") else labels


OF_STAYING = ("mean", "var", "std", "var_mean", "norm", "linalg_vector_norm")
"""Reductions that mean as much over some of the units as over all."""


@rule("sum mean amax amin max min argmax argmin std var var_mean prod norm linalg_vector_norm logsumexp any all")
def reduction(state: State, node: Node, args: list[Any], kwargs: dict[str, Any]) -> Any:
    """A sum over units may lose some, a mean or a norm those of streams; else units along the axes go together."""
    name, value = name_of(node), args[0]
    if len(args) > 1 and isinstance(args[1], Value):
        return align(state.facts, [(operand.shape, operand.labels) for operand in values_in((args, kwargs))])
    position = 2 if name in ("norm", "linalg_vector_norm") else 1
    dim = kwargs.get("dim", args[position] if len(args) > position else None)
    axes = _dims(value, None if isinstance(dim, bool) else dim)
    if name != "sum":
        if name in OF_STAYING:
            reduced(state, node, value, axes)
        else:
            tied(state, value, axes)
        labels = [label if not set(axes_of(label)) & set(axes) else _first(label, axes) for label in value.labels]
    else:
        for label in value.labels:
            if set(axes_of(label)) & set(axes):
                state.contractions.append(Contraction(node, 0, label, None))
        labels = summed_labels(state.facts, value.labels, axes)
    shape = node.meta["val"][0].shape if isinstance(node.meta["val"], list | tuple) else node.meta["val"].shape
    if len(shape) != len(value.shape):
        labels = [_without(label, axes) for label in labels]
    labels = [label for label in labels if label.ndim and axes_of(label)]
    return [labels, labels] if isinstance(node.meta["val"], list | tuple) else labels


def _first(label: Label, axes: Sequence[int]) -> Label:
    for axis in axes:
        label = label.narrow(axis, 0, 1)
    return label


def _without(label: Label, axes: Sequence[int]) -> Label:
    shape = [size for axis, size in enumerate(label.shape) if axis not in axes]
    return label.reshape(shape)


@rule("glu")
def glu(state: State, node: Node, args: list[Any], kwargs: dict[str, Any]) -> list[Label]:
    """Each unit of one half goes with that of the other half."""
    value = args[0]
    axis = (args[1] if len(args) > 1 else kwargs.get("dim", -1)) % len(value.shape)
    halves = [[half for label in value.labels for half in [_half(label, axis, part)]] for part in range(2)]
    shape = tuple(size // 2 if i == axis else size for i, size in enumerate(value.shape))
    return align(state.facts, [(shape, labels) for labels in halves])


def _half(label: Label, axis: int, part: int) -> Label:
    return label if label.shape[axis] == 1 else label.chunk(2, axis)[part]


@rule(
    "max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d "
    "adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool2d adaptive_max_pool1d _adaptive_avg_pool2d "
    "upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_bilinear2d upsample_bicubic2d "
    "_upsample_bicubic2d_aa upsample_linear1d upsample_trilinear3d max_pool2d_with_indices "
    "_upsample_bilinear2d_aa lp_pool2d reflection_pad1d reflection_pad2d replication_pad1d replication_pad2d "
    "pad constant_pad_nd"
)
def spatial(state: State, node: Node, args: list[Any], kwargs: dict[str, Any]) -> Any:
    """What changes sizes of axes that labels do not run over keeps the labels; an axis that they run over is pinned."""
    value = args[0]
    result = node.meta["val"]
    shape = tuple((result[0] if isinstance(result, list | tuple) else result).shape)
    labels = []
    for label in value.labels:
        changed = [axis for axis in axes_of(label) if shape[axis] != value.shape[axis]]
        if changed:
            state.facts.pin(label)
        else:
            labels.append(label)
    return [labels, labels] if isinstance(result, list | tuple) else labels


@rule("_weight_norm")
def weight_norm(state: State, node: Node, args: list[Any], kwargs: dict[str, Any]) -> list[Label]:
    """A weight with the norm of each of its rows given: rows go with their norms, what a norm is of goes together."""
    weight, norms = args[:2]
    dim = kwargs.get("dim", args[2] if len(args) > 2 else 0)
    labels = align(state.facts, [(weight.shape, weight.labels), (norms.shape, norms.labels)])
    normed = [axis for axis in range(len(weight.shape)) if dim == -1 or axis != dim % len(weight.shape)]
    return tied(state, Value(weight.shape, labels), normed)
