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


def without_changes(program: Program) -> Graph:
    """The graph of a program, in which no operation changes what it is given: those that did work on a copy, and what
    follows reads their result. Names of other operations stay."""
    graph, now = Graph(), dict[Node, Node]()
    for node in program.nodes:
        if node.op == "output":
            graph.output(tree_flatten(torch.fx.node.map_arg(node.args, lambda one: now[one]))[0])
            continue
        made = graph.node_copy(node, lambda one: now[one])
        if changes(node):
            given = made.args[0]
            with graph.inserting_before(made):
                copied = graph.call_function(torch.ops.aten.clone.default, (given,))
            made.args = (copied, *made.args[1:])
            now[node.args[0]] = made  # type: ignore[index]
        now[node] = made
    return graph


def changes(node: Node) -> bool:
    """Whether an operation changes the first tensor that it is given."""
    schema = getattr(node.target, "_schema", None)
    if schema is None or not schema.is_mutable or not node.args or not isinstance(node.args[0], Node):
        return False
    return str(schema.name).endswith("_")


class _Enough(Exception):
    """All values that were asked for are known."""


class _Values(Interpreter):
    def __init__(self, module: GraphModule, wanted: Collection[str]) -> None:
        super().__init__(module)
        self.wanted, self.known = {*wanted}, dict[str, Any]()

    def run_node(self, n: Node) -> Any:
        value = super().run_node(n)
        if n.name in self.wanted:
            self.known[n.name] = value
            if len(self.known) == len(self.wanted):
                raise _Enough
        return value


@torch.no_grad()
def values(
    program: Program, graph: Graph, tensors: Mapping[str, Tensor], arguments: Arguments, wanted: Collection[str]
) -> dict[str, Any]:
    """What nodes of these names give; no operation behind the last of them is run."""
    given = placed(program, tensors, arguments)
    if not wanted:
        return {}
    run = _Values(GraphModule(program.exported.graph_module, graph), wanted)
    with suppress(_Enough):
        run.run(*(given[node.name] for node in graph.nodes if node.op == "placeholder"))
    return run.known


def placed(program: Program, tensors: Mapping[str, Tensor], arguments: Arguments) -> dict[str, Any]:
    """What each placeholder of a program stands for."""
    leaves = iter(tree_flatten(arguments)[0])
    given: dict[str, Any] = {}
    for spec in program.exported.graph_signature.input_specs:
        name = str(spec.arg.name)
        if name in program.names:
            given[name] = tensors[program.names[name]]
        elif spec.kind is InputKind.USER_INPUT:
            given[name] = next(leaves)
        else:
            given[name] = program.constants.get(name)
    return given


def function(program: Program, nodes: Sequence[Node], given: Sequence[Node], results: Sequence[Node]) -> GraphModule:
    """`nodes`, which stand in order, as a function of `given` that returns `results`."""
    graph, now = Graph(), dict[Node, Node]()
    for number, node in enumerate(given):
        now[node] = graph.placeholder(f"given_{number}")
    for node in nodes:
        now[node] = graph.node_copy(node, lambda one: now[one])
    graph.output(tuple(now[node] for node in results))
    return GraphModule(program.exported.graph_module, graph)
