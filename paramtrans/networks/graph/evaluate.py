"""Values in a captured program, and pieces of it as functions that can be differentiated."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor
from torch.export.graph_signature import InputKind
from torch.fx import Graph, GraphModule, Interpreter, Node
from torch.utils._pytree import tree_flatten

from paramtrans.networks.graph.capture import Arguments, Program


class _Enough(Exception):
    """All wanted values are known."""


class _Values(Interpreter):
    """A program run until the values of some nodes are known."""

    def __init__(self, module: GraphModule, names: Collection[str]) -> None:
        super().__init__(module)
        self.names, self.results = {*names}, dict[str, Any]()

    def run_node(self, n: Node) -> Any:
        value = super().run_node(n)
        if n.name in self.names:
            self.results[n.name] = value
            if len(self.results) == len(self.names):
                raise _Enough
        return value


@torch.no_grad()
def node_values(
    program: Program, graph: Graph, tensors: Mapping[str, Tensor], arguments: Arguments, names: Collection[str]
) -> dict[str, Any]:
    """The values of nodes in a run of a program; no operation behind the last of them is run.

    Args:
        program: Says what its placeholders stand for.
        graph: Its graph, or one without changes.
        tensors: Parameters and buffers by name.
        arguments: What the network is called with.
        names: Of the nodes.
    """
    by_placeholder = placeholder_values(program, tensors, arguments)
    if not names:
        return {}
    run = _Values(GraphModule(program.exported.graph_module, graph), names)
    with suppress(_Enough):
        run.run(*(by_placeholder[node.name] for node in graph.nodes if node.op == "placeholder"))
    return run.results


def placeholder_values(program: Program, tensors: Mapping[str, Tensor], arguments: Arguments) -> dict[str, Any]:
    """The value of each placeholder of a program.

    Args:
        program: The program.
        tensors: Parameters and buffers by name.
        arguments: What the network is called with.
    """
    leaves = iter(tree_flatten(arguments)[0])
    by_placeholder: dict[str, Any] = {}
    for spec in program.exported.graph_signature.input_specs:
        name = str(spec.arg.name)
        if name in program.names:
            by_placeholder[name] = tensors[program.names[name]]
        elif spec.kind is InputKind.USER_INPUT:
            by_placeholder[name] = next(leaves)
        else:
            by_placeholder[name] = program.constants.get(name)
    return by_placeholder


def as_function(
    program: Program, nodes: Sequence[Node], entering: Sequence[Node], results: Sequence[Node]
) -> GraphModule:
    """Some operations of a program as a function.

    Args:
        program: Where they are from.
        nodes: The operations, in the order in which they run.
        entering: Nodes whose values are its arguments.
        results: Nodes whose values it returns.
    """
    graph, copies = Graph(), dict[Node, Node]()
    for number, node in enumerate(entering):
        copies[node] = graph.placeholder(f"given_{number}")
    for node in nodes:
        copies[node] = graph.node_copy(node, lambda operand: copies[operand])
    graph.output(tuple(copies[node] for node in results))
    return GraphModule(program.exported.graph_module, graph)
