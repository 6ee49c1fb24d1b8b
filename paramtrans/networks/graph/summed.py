"""Which axis of a layer's weight it sums over."""

from __future__ import annotations

from collections.abc import Mapping

from torch.fx import Node

from paramtrans.networks.graph.operators import name_of

AXES = {
    "linear": 1, "conv1d": 1, "conv2d": 1, "conv3d": 1, "addmm": 0, "matmul": 0, "mm": 0,
    "conv_transpose1d": 0, "conv_transpose2d": 0, "conv_transpose3d": 0,
}  # fmt: skip
"""For each operation the axis of its weight that it sums over."""
GROUPS = {"conv1d": 6, "conv2d": 6, "conv3d": 6, "conv_transpose1d": 6, "conv_transpose2d": 6, "conv_transpose3d": 6}
"""Where the number of groups stands among the arguments."""


def weight_of(node: Node, names: Mapping[str, str]) -> str | None:
    """The weight that an operation of `AXES` multiplies something by.

    Args:
        node: The operation.
        names: Of parameters, by their placeholders.

    Returns:
        None for other operations, and for products with one vector or with a batch of matrices.
    """
    name = name_of(node)
    if node.op != "call_function" or name not in AXES:
        return None
    position = 2 if name == "addmm" else 1
    weight = node.args[position] if len(node.args) > position else None
    if not isinstance(weight, Node) or weight.name not in names:
        return None
    return names[weight.name] if name in GROUPS or weight.meta["val"].ndim == 2 else None


def has_groups(node: Node) -> bool:
    """Whether an operation is a convolution of several groups."""
    position = GROUPS.get(name_of(node))
    if position is None:
        return False
    return bool(node.kwargs.get("groups", node.args[position] if len(node.args) > position else 1) != 1)


def summed_axis(node: Node, names: Mapping[str, str]) -> tuple[str, int] | None:
    """The weight that an operation multiplies something by, and the axis of it that is summed over.

    Args:
        node: The operation.
        names: Of parameters, by their placeholders.

    Returns:
        None where there is no such weight, and for convolutions of several groups.
    """
    weight = weight_of(node, names)
    return None if weight is None or has_groups(node) else (weight, AXES[name_of(node)])
