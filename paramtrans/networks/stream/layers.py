"""Layers that read a residual stream, write it, or do both."""

from __future__ import annotations

from typing import Any

from torch.fx import Node

from paramtrans.networks.graph.operators import Rules, name_of
from paramtrans.networks.stream.contacts import Carrier, refuse
from paramtrans.networks.stream.walk import Rule, Walk, shape_of

rule = Rules[Rule]()
"""The rules of this file."""

PRODUCTS = ("linear", "addmm", "matmul", "mm")
CONVOLUTIONS = ("conv1d", "conv2d", "conv3d")


@rule("embedding")
def embedding(walk: Walk, node: Node) -> Carrier | None:
    """Rows of a table, whose columns are the units."""
    table, numbers = node.args[:2]
    parameter = walk.parameter(table)
    if numbers in walk.roles or table in walk.roles:
        refuse("embedding reads the stream", node)
    if parameter is None or 1 not in parameter[1].values():
        return None
    walk.write(table, 1, node, node)  # type: ignore[arg-type]
    return Carrier(len(shape_of(node)) - 1, node)


@rule(" ".join(PRODUCTS + CONVOLUTIONS))
def layer(walk: Walk, node: Node) -> Carrier | None:
    """A product with a parameter: its columns read the stream, its rows and its bias write it."""
    entering, weight, bias = _operands(node)
    parameter = walk.parameter(weight)
    if weight in walk.roles or bias in walk.roles or (parameter is None and entering in walk.roles):
        refuse(f"{name_of(node)} multiplies the stream by something that is no parameter", node)
    if parameter is None:
        return None
    convolution = name_of(node) in CONVOLUTIONS
    reading, writing = (1, 0) if name_of(node) == "linear" or convolution else (0, 1)
    if not {*parameter[1].values()} <= {reading, writing}:
        refuse(f"{name_of(node)} takes units of the stream apart", node)
    if convolution and parameter[1] and (node.args[6] if len(node.args) > 6 else 1) != 1:
        refuse(f"{name_of(node)} works on groups of units of the stream", node)
    for axis, position in parameter[1].items():
        if position == reading:
            _read(walk, node, (entering, bias), (parameter[0], axis))
    if entering in walk.roles and reading not in parameter[1].values():
        refuse(f"{name_of(node)} reads the stream along another axis", node)
    if writing not in parameter[1].values():
        return None
    walk.write(weight, writing, node, node)
    if bias is not None:
        walk.write(bias, 0, node, node)
    return Carrier(1 if convolution else len(shape_of(node)) - 1, node)


def _operands(node: Node) -> tuple[Any, Any, Any]:
    """What a layer reads, its weight and its bias."""
    arguments = [*node.args, None, None]
    if name_of(node) == "addmm":
        return arguments[1], arguments[2], arguments[0]
    bias = arguments[2] if name_of(node) not in ("matmul", "mm") else None
    return arguments[0], arguments[1], bias if bias is not None else node.kwargs.get("bias")


def _read(walk: Walk, node: Node, operands: tuple[Any, Any], weight: tuple[str, int]) -> None:
    entering, bias = operands
    carrier = walk.carrier(entering)
    convolution = name_of(node) in CONVOLUTIONS
    if carrier is None or carrier.axis != (1 if convolution else len(shape_of(entering)) - 1):
        refuse(f"{name_of(node)} reads units of the stream along another axis", node)
    if convolution and carrier.shifts:
        refuse(f"{name_of(node)} pads what a norm has shifted", node)
    walk.read(node, entering, *weight, bias)
