"""What operations do to a residual stream, operation by operation; those without a rule refuse it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch.fx import Node

from paramtrans.networks.graph.operators import Rules, name_of
from paramtrans.networks.stream.contacts import Carrier, Role, Squares, refuse
from paramtrans.networks.stream.tracing import MOVING, SAME, moved, numbered, unit_axis
from paramtrans.networks.stream.walk import Rule, Walk, shape_of, users

rule = Rules[Rule]()
"""The rules of this file."""


@rule(" ".join(SAME))
def same(walk: Walk, node: Node) -> Any:
    """The values stay what they are."""
    if name_of(node).endswith("dropout") and node.args[2]:
        refuse("dropout draws at random in eval mode", node)
    return walk.roles.get(node.args[0])  # type: ignore[arg-type]


@rule(" ".join(MOVING))
def move(walk: Walk, node: Node) -> Any:
    """Elements are moved; the units stay in order along one axis."""
    role: Any = walk.roles.get(node.args[0])  # type: ignore[arg-type]
    if role is None:
        refuse(f"{name_of(node)} picks by values of the stream", node)
    numbers = moved(node, numbered(shape_of(node.args[0]), role.axis))  # type: ignore[arg-type]
    if numbers is None:
        return _picked(node, role)
    several = isinstance(numbers, list | tuple)
    axes = [unit_axis(part, walk.stream.size) for part in (numbers if several else [numbers])]
    if any(axis is None for axis in axes):
        refuse(f"{name_of(node)} takes the units of the stream apart, or in another order", node)
    roles = [replace(role, axis=axis) for axis in axes]
    return roles if several else roles[0]


def _picked(node: Node, role: Any) -> Any:
    """Rows picked by other values: the units still lie along the last axis."""
    picked = node.args[1] if name_of(node) == "index" else None
    last = len(shape_of(node.args[0])) - 1  # type: ignore[arg-type]
    if not isinstance(picked, list | tuple) or role.axis != last or len(picked) > last:
        refuse(f"{name_of(node)} picks by values of the network", node)
    return replace(role, axis=len(shape_of(node)) - 1)


@rule("getitem")
def item(walk: Walk, node: Node) -> Any:
    """One of several values."""
    return walk.roles[node.args[0]][node.args[1]]  # type: ignore[index]


@rule("add sub")
def add(walk: Walk, node: Node) -> Carrier:
    """The stream grows by what a layer or a parameter writes; a shift behind a norm is carried on."""
    left, right = node.args[:2]
    if walk.carrier(left) is None:
        left, right = right, left
    carrier = walk.carrier(left)
    if carrier is None or not isinstance(left, Node) or not isinstance(right, Node):
        refuse(f"{name_of(node)} adds the same to all units of the stream", node)
    if walk.unit_size(right, left, carrier.axis) == 1:
        refuse(f"{name_of(node)} adds the same to all units of the stream", node)
    axis = len(shape_of(node)) - len(shape_of(left)) + carrier.axis
    of_norm = carrier.writer is None and (carrier.scales or carrier.centred)
    if right in walk.constant and of_norm and name_of(node) == "add" and not node.kwargs:
        walk.vector(right, node, walk.contacts.shifts)
        return replace(carrier, axis=axis, shifts=(*carrier.shifts, right))
    walk.settled(left, node)
    _joined(walk, right, axis, len(shape_of(node)), node)
    return Carrier(axis)


@rule("cat concat concatenate stack where")
def join(walk: Walk, node: Node) -> Carrier:
    """Values of the stream, and parameters, beside each other along another axis."""
    several = name_of(node) != "where"
    operands: list[Any] = list(node.args[0] if several else node.args[1:])  # type: ignore[arg-type]
    ndim = len(shape_of(node))
    axes = [role.axis - len(shape_of(value)) for value in operands if (role := walk.carrier(value))]
    dim = node.args[1] if several and len(node.args) > 1 else node.kwargs.get("dim", 0)
    stacked = name_of(node) == "stack"
    if not axes or stacked or (several and dim % ndim == axes[0] % ndim):  # type: ignore[operator]
        refuse(f"{name_of(node)} joins units of the stream with others", node)
    for value in operands:
        _joined(walk, value, axes[0] % ndim, ndim, node)
    return Carrier(axes[0] % ndim)


def _joined(walk: Walk, value: Any, axis: int, ndim: int, node: Node) -> None:
    """What goes into the stream: a carrier with its units along the same axis, or a parameter."""
    if not isinstance(value, Node):
        refuse(f"{name_of(node)} joins units of the stream with numbers", node)
    own_axis = axis - ndim + len(shape_of(value))
    if walk.carrier(value) is None and value in walk.constant:
        walk.write(value, own_axis, None, node)
    elif walk.settled(value, node).axis != own_axis:
        refuse(f"{name_of(node)} joins units of the stream with others", node)


@rule("mul div")
def scale(walk: Walk, node: Node) -> Role:
    """The stream times a number, or times one for each unit, which is carried on; times itself it gives squares."""
    left, right = node.args[:2]
    if name_of(node) == "mul" and left is right and isinstance(left, Node):
        return Squares(walk.clean(left, node).axis)
    if walk.roles.get(left) is None and name_of(node) == "mul":  # type: ignore[arg-type]
        left, right = right, left
    role = walk.roles.get(left)  # type: ignore[arg-type]
    if not isinstance(left, Node) or not isinstance(role, Carrier | Squares) or right in walk.roles:
        refuse(f"{name_of(node)} multiplies units of the stream by others", node)
    axis = len(shape_of(node)) - len(shape_of(left)) + role.axis
    single = walk.unit_size(right, left, role.axis) == 1
    if isinstance(role, Squares) or (isinstance(role, Carrier) and role.shifts):
        refuse(f"{name_of(node)} scales what a norm has shifted, or squares", node)
    if single:
        return replace(role, axis=axis)
    if name_of(node) != "mul":
        refuse("div divides each unit of the stream by a number of its own", node)
    walk.vector(right, node, walk.contacts.scales)  # type: ignore[arg-type]
    writer = role.writer if role.writer is not None and _used_here_alone(left, role.writer) else None
    return replace(role, axis=axis, writer=writer, scales=(*role.scales, right))  # type: ignore[arg-type]


def _used_here_alone(node: Node, writer: Node) -> bool:
    """Whether a layer's output goes nowhere but, moved, into this value, and this value into one operation."""
    while len(users(node)) == 1:
        if node is writer:
            return True
        node = next(operand for operand in node.all_input_nodes if operand.op == "call_function")
    return False


@rule("pow square")
def square(walk: Walk, node: Node) -> Squares:
    """Squares of the units, for a norm that is written out."""
    if name_of(node) == "pow" and node.args[1] not in (2, 2.0):
        refuse("pow works on each unit of the stream by itself", node)
    return Squares(walk.clean(node.args[0], node).axis)  # type: ignore[arg-type]


@rule("mean sum")
def average(walk: Walk, node: Node) -> Role | None:
    """Sums of squares over the units leave nothing of the stream; averages over other axes keep it."""
    value, given = node.args[0], node.args[1] if len(node.args) > 1 else None
    role: Any = walk.roles[value]  # type: ignore[index]
    ndim = len(shape_of(value))  # type: ignore[arg-type]
    axes = {axis % ndim for axis in given} if isinstance(given, list | tuple) and given else {*range(ndim)}
    if role.axis in axes:
        if isinstance(role, Carrier):
            refuse(f"{name_of(node)} adds up units of the stream", node)
        return None
    if isinstance(role, Carrier) and role.shifts and name_of(node) == "sum":
        refuse("sum adds up what a norm has shifted", node)
    kept = len(shape_of(node)) == ndim
    averaged: Role = replace(role, axis=role.axis if kept else role.axis - sum(axis < role.axis for axis in axes))
    return averaged


@rule("linalg_vector_norm")
def length(walk: Walk, node: Node) -> None:
    """The length of the stream's vector."""
    order = node.args[1] if len(node.args) > 1 else 2
    axis = walk.clean(node.args[0], node).axis  # type: ignore[arg-type]
    dims = node.args[2] if len(node.args) > 2 else None
    ndim = len(shape_of(node.args[0]))  # type: ignore[arg-type]
    if order not in (2, 2.0) or not isinstance(dims, list | tuple) or axis not in {dim % ndim for dim in dims}:
        refuse("linalg_vector_norm works on each unit of the stream by itself", node)


@rule("layer_norm rms_norm")
def norm(walk: Walk, node: Node) -> Carrier:
    """Its scale and its shift are carried on; a LayerNorm takes the mean out."""
    value, sizes, *vectors = node.args[:4]
    centring = name_of(node) == "layer_norm"
    carrier = walk.carrier(value)
    if carrier is None or carrier.scales or carrier.shifts:
        refuse(f"{name_of(node)} reads the stream behind scales for each unit", node)
    if list(sizes) != [walk.stream.size] or carrier.axis != len(shape_of(value)) - 1:  # type: ignore[arg-type]
        refuse(f"{name_of(node)} normalises over more than the units of one stream", node)
    if centring:
        walk.contacts.layer_norms.append(node)
    elif not carrier.centred:
        walk.contacts.direct.append(node)
    weight, bias = [*vectors, None, None][:2]
    scales, shifts = ((vector,) if isinstance(vector, Node) else () for vector in (weight, bias if centring else None))
    for vectors_of, kept_in in ((scales, walk.contacts.scales), (shifts, walk.contacts.shifts)):
        for vector in vectors_of:
            walk.vector(vector, node, kept_in)
    return Carrier(carrier.axis, None, scales, shifts, centring or carrier.centred)
