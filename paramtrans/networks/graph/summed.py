"""Which axis of a layer's weight it sums over."""

from __future__ import annotations

from collections.abc import Mapping

from torch.fx import Node

from paramtrans.networks.graph.operators import name_of

AXES = {
    "linear": 1, "conv1d": 1, "conv2d": 1, "conv3d": 1, "addmm": 0, "matmul": 0, "mm": 0,
    "conv_transpose1d": 0, "conv_transpose2d": 0, "conv_transpose3d": 0,
}  # fmt: skip
GROUPS = {"conv1d": 6, "conv2d": 6, "conv3d": 6, "conv_transpose1d": 6, "conv_transpose2d": 6, "conv_transpose3d": 6}
"""Where the number of groups stands among the arguments."""


def summed_axis(node: Node, names: Mapping[str, str]) -> tuple[str, int] | None:
    """The weight that an operation multiplies something by, and the axis of it that is summed over.

    Args:
        node: The operation.
        names: Of parameters, by their placeholders.

    Returns:
        None for other operations, and for convolutions of several groups.
    """
    name = name_of(node)
    if node.op != "call_function" or name not in AXES:
        return None
    position = 2 if name == "addmm" else 1
    weight = node.args[position] if len(node.args) > position else None
    if not isinstance(weight, Node) or weight.name not in names:
        return None
    groups = GROUPS.get(name)
    if groups is not None and node.kwargs.get("groups", node.args[groups] if len(node.args) > groups else 1) != 1:
        return None
    return names[weight.name], AXES[name]
