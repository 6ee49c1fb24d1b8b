"""Captured programs in which no operation changes its arguments."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Graph, Node
from torch.fx.node import map_arg
from torch.utils._pytree import tree_flatten

from paramtrans.errors import SpecMismatch
from paramtrans.networks.graph.capture import Program, changes, code_line, storage_of
from paramtrans.networks.graph.operators import name_of

IN_ORDER = {"view", "reshape", "flatten", "unflatten", "unsqueeze", "squeeze", "_unsafe_view", "view_as", "reshape_as"}
"""Operations that give all elements of a tensor in their order."""

Copies = dict[Node, Node]
"""For each node of a program the one that holds its value now."""


def without_changes(program: Program) -> Graph:
    """The graph of a program, in which no operation changes its arguments.

    Operations that did work on a copy, and what follows reads their result, through other views of the same tensor too.
    Names of other operations stay.

    Raises:
        SpecMismatch: a part of a tensor is changed by a view that is not known.
    """
    graph, copies, nodes = Graph(), Copies(), program.nodes
    places = {node: place for place, node in enumerate(nodes)}
    for place, node in enumerate(nodes):
        if node.op == "output":
            graph.output(tree_flatten(map_arg(node.args, lambda operand: copies[operand]))[0])
            continue
        copied = graph.node_copy(node, lambda operand: copies[operand])
        copies[node] = copied
        if changes(node):
            changed = node.args[0]
            assert isinstance(changed, Node)
            with graph.inserting_before(copied):
                clone = graph.call_function(torch.ops.aten.clone.default, (copied.args[0],))
            copied.args = (clone, *copied.args[1:])
            copies[changed] = copied
            same = [other for other in nodes[:place] if storage_of(other) == storage_of(node) and other is not changed]
            if any(places[user] > place for other in same for user in other.users):
                _write_back(graph, copies, changed, same)
    return graph


def _write_back(graph: Graph, copies: Copies, changed: Node, same: list[Node]) -> None:
    """Write a changed view into the tensor that it is of, and take all other views of that again."""
    view, written = changed, {changed}
    while (base := _base(view)) is not None:
        copies[base] = _into(graph, copies, view, base)
        written.add(base)
        view = base
    for other in same:
        if other in written:
            continue
        if (base := _base(other)) is None:
            raise _unknown(other)
        if changes(other):
            copies[other] = copies[base]
            continue
        args, kwargs = map_arg((other.args, other.kwargs), lambda operand: copies[operand])
        copies[other] = graph.create_node(other.op, other.target, args, kwargs, f"again_{other.name}")


def _base(view: Node) -> Node | None:
    """What a node is a view of: of one of several pieces, what was cut."""
    base = next((n for n in view.all_input_nodes if storage_of(n) == storage_of(view)), None)
    return _base(base) if base is not None and name_of(view) == "getitem" else base


def _into(graph: Graph, copies: Copies, view: Node, base: Node) -> Node:
    """The tensor `base` with the value of a view of it in its place."""
    aten, name, value, args = torch.ops.aten, name_of(view), copies[view], view.args[1:]
    if _geometry(view) == _geometry(base):  # changed itself, or what gives back its argument, as dropout does
        return value
    if name == "slice" and not view.kwargs:
        return graph.call_function(aten.slice_scatter.default, (copies[base], value, *args))
    if name == "select" and not view.kwargs:
        return graph.call_function(aten.select_scatter.default, (copies[base], value, *args))
    if name == "getitem":
        return _piece_into(graph, copies, view, base)
    if name in IN_ORDER:
        return graph.call_function(aten.reshape.default, (value, list(base.meta["val"].shape)))
    if name == "transpose" and not view.kwargs:
        return graph.call_function(aten.transpose.int, (value, *args))
    if name == "permute" and not view.kwargs:
        order = [axis % len(args[0]) for axis in args[0]]  # type: ignore[arg-type,union-attr,operator]
        return graph.call_function(aten.permute.default, (value, [order.index(axis) for axis in range(len(order))]))
    raise _unknown(view)


def _piece_into(graph: Graph, copies: Copies, view: Node, base: Node) -> Node:
    """The tensor `base` with the value of one of the pieces that it was cut into."""
    cut, number = view.args
    assert isinstance(cut, Node) and isinstance(number, int)
    name, pieces = name_of(cut), cut.meta["val"]
    names = [argument.name for argument in cut.target._schema.arguments]  # type: ignore[union-attr]
    axis: Any = {**dict(zip(names, cut.args, strict=False)), **cut.kwargs}.get("dim", 0)
    if name == "unbind":
        return graph.call_function(torch.ops.aten.select_scatter.default, (copies[base], copies[view], axis, number))
    if name not in ("chunk", "split", "split_with_sizes", "tensor_split"):
        raise _unknown(view)
    start = sum(piece.shape[axis] for piece in pieces[:number])
    end = start + pieces[number].shape[axis]
    return graph.call_function(torch.ops.aten.slice_scatter.default, (copies[base], copies[view], axis, start, end))


def _geometry(node: Node) -> tuple[Any, ...]:
    """Where in its storage a tensor lies."""
    value = node.meta["val"]
    return value.dtype, value.shape, value.stride(), value.storage_offset()


def _unknown(view: Node) -> SpecMismatch:
    line = code_line(view)
    return SpecMismatch(
        f"{line or view.name}: a part of a tensor ({name_of(view)}) that is changed in place, and the whole is read "
        "behind; let the code make a new tensor"
    )
