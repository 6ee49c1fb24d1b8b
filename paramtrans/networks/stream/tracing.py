"""Units of a stream followed through operations that move elements: the operations run on the units' numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from paramtrans.networks.graph.capture import Program
from paramtrans.networks.graph.labels import axes_of, squeezed
from paramtrans.networks.graph.operators import name_of
from paramtrans.networks.graph.rules.movement import movement
from paramtrans.networks.graph.rules.table import RULES

MOVING = frozenset(name for name, rule in RULES.items() if rule is movement)
"""Operations that move elements."""
SAME = (
    *("to", "_to_copy", "type_as", "float", "half", "bfloat16", "double", "clone", "contiguous", "alias", "detach"),
    *("lift_fresh_copy", "dropout", "feature_dropout"),
)
"""Operations that leave each element what it is, in eval mode."""


def numbered(shape: Sequence[int], axis: int) -> Tensor:
    """A tensor of a shape that holds the numbers of the units along one axis."""
    view = [-1 if other_axis == axis % len(shape) else 1 for other_axis in range(len(shape))]
    return torch.arange(shape[axis]).view(view).expand(tuple(shape)).contiguous()


def unit_axis(numbers: Tensor, size: int) -> int | None:
    """The axis along which all units lie in order; None where there is none."""
    label = squeezed(numbers)
    axes = axes_of(label)
    in_order = len(axes) == 1 and torch.equal(label.flatten(), torch.arange(size))
    return axes[0] if in_order else None


def moved(node: Node, numbers: Tensor) -> Any:
    """What an operation that moves elements does to numbers of units; None where other values decide that."""
    if len(node.all_input_nodes) > 1:
        return None
    return node.target(numbers, *node.args[1:], **node.kwargs)  # type: ignore[operator]


def moved_parameter(program: Program, node: Node) -> str | None:
    """Name of the network's tensor that a value is, moved; None where it is something else."""
    while node.op == "call_function":
        if name_of(node) not in MOVING | {*SAME, "getitem"}:
            return None
        node = node.args[0]  # type: ignore[assignment]
    return program.names.get(node.name)


def traced(node: Node, shape: Sequence[int], axis: int) -> Any:
    """Numbers of units in a value that is a moved parameter, where they are those of one of the parameter's axes.

    Args:
        node: The value.
        shape: Of the parameter.
        axis: Of the parameter.
    """
    if node.op != "call_function":
        return numbered(shape, axis)
    numbers = traced(node.args[0], shape, axis)  # type: ignore[arg-type]
    if numbers is None or name_of(node) in SAME:
        return numbers
    return numbers[node.args[1]] if name_of(node) == "getitem" else moved(node, numbers)
