"""Operations that compute each element by itself, and normalisations."""

from __future__ import annotations

from typing import Any

from torch.fx import Node

from paramtrans.networks.graph.labels import Label, align, axes_of
from paramtrans.networks.graph.operators import (
    Rule,
    Rules,
    State,
    Value,
    name_of,
    pin_all,
    reduced,
    spread,
    values_in,
)

rule = Rules[Rule]()
"""The rules of this file."""


@rule(
    "add sub mul div rsub pow maximum minimum fmax fmin where lerp addcmul addcdiv eq ne lt le gt ge "
    "logical_and logical_or logical_xor bitwise_and bitwise_or bitwise_xor __and__ __or__ atan2 fmod "
    "remainder floor_divide relu relu6 gelu silu sigmoid tanh hardswish hardsigmoid hardtanh leaky_relu elu "
    "celu selu mish softplus logsigmoid exp log log1p expm1 sqrt rsqrt neg abs sin cos tan erf reciprocal "
    "sign floor ceil round clamp clamp_min clamp_max masked_fill logical_not bitwise_not dropout "
    "feature_dropout alpha_dropout clone contiguous alias detach to _to_copy type_as float half bfloat16 "
    "double int long bool lift_fresh_copy prelu isnan isinf isfinite nan_to_num softsign hardshrink "
    "softshrink tanhshrink threshold trunc frac asin acos atan sinh cosh detach_copy log2 log10 exp2 positive "
    "xlogy rrelu true_divide dropout2d log_sigmoid _assert_tensor_metadata bernoulli "
    "native_dropout erfinv signbit"
)
def elementwise(state: State, node: Node, args: list[Any], kwargs: dict[str, Any]) -> list[Label]:
    """Units of all operands that meet go together."""
    if name_of(node) == "prelu" and args[1].shape != (1,) and len(args[0].shape) > 1:
        args = [args[0], spread(args[1], len(args[0].shape), 1)]
    values = [(value.shape, value.labels) for value in values_in((args, kwargs))]
    return align(state.facts, values) if values else []


@rule("batch_norm instance_norm")
def channel_norm(state: State, node: Node, args: list[Any], kwargs: dict[str, Any]) -> list[Label]:
    """Each channel is normalised by itself."""
    value = args[0]
    vectors = [spread(operand, len(value.shape), 1) for operand in args[1:] if isinstance(operand, Value)]
    return align(state.facts, [(operand.shape, operand.labels) for operand in (value, *vectors)])


@rule("layer_norm rms_norm")
def axis_norm(state: State, node: Node, args: list[Any], kwargs: dict[str, Any]) -> list[Label]:
    """Units along the axes that are normalised over go together, but for those of streams that may go."""
    value, sizes = args[0], args[1]
    labels = reduced(state, node, value, range(len(value.shape) - len(sizes), len(value.shape)))
    vectors = [operand for operand in args[2:] if isinstance(operand, Value)]
    return align(state.facts, [(value.shape, labels), *((operand.shape, operand.labels) for operand in vectors)])


@rule("group_norm")
def group_norm(state: State, node: Node, args: list[Any], kwargs: dict[str, Any]) -> list[Label]:
    """The channels of each group go together."""
    value, groups = args[0], args[1]
    vectors = [spread(operand, len(value.shape), 1) for operand in args[2:] if isinstance(operand, Value)]
    labels = align(state.facts, [(operand.shape, operand.labels) for operand in (value, *vectors)])
    for label in labels:
        if axes_of(label) == (1,):
            state.facts.tie(label.view(groups, -1), [1])
        elif 1 in axes_of(label):
            state.facts.pin(label)
    return labels


FILLING = ("zeros", "ones", "full", "new_zeros", "new_ones", "new_full", "zeros_like", "ones_like", "full_like")
"""Operations that make a tensor of one number, whose sizes are the code's."""


@rule(" ".join(FILLING))
def filled(state: State, node: Node, args: list[Any], kwargs: dict[str, Any]) -> list[Label]:
    """Any of these sizes may follow what the value is combined with."""
    shape = tuple(node.meta["val"].shape)
    sides = [(axis, size) for axis, size in enumerate(shape) if size > 1]
    return [
        state.facts.fresh(*(size if other_axis == axis else 1 for other_axis in range(len(shape))))
        for axis, size in sides
    ]


@rule(
    "arange empty empty_like new_empty scalar_tensor tensor "
    "eye linspace tril triu rand randn randn_like rand_like fill copy sym_size "
    "_assert_async _assert_scalar meshgrid sym_constrain_range_for_size one_hot bucketize searchsorted "
    "tril_indices"
)
def unlabelled(state: State, node: Node, args: list[Any], kwargs: dict[str, Any]) -> list[Label]:
    """Results whose elements are not units; where labelled values go in, those are pinned unless shapes alone count."""
    if name_of(node).endswith("_like") or name_of(node).startswith("new_"):
        return []
    return pin_all(state, node, args, kwargs)
