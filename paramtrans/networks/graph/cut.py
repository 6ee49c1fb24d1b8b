"""A piece of a graph, from the layers that write a group of units to those that read it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch.fx import Graph, Node

from paramtrans.networks.graph.capture import Program


@dataclass(frozen=True)
class Cut:
    """A piece of a graph: trained tensors by name, operations in order, and what enters these from outside."""

    params: Mapping[str, Node]
    nodes: list[Node]
    entering: list[Node]


def cut_out(program: Program, graph: Graph, names: set[str], ends: Sequence[Node]) -> Cut:
    """All that lies between parameters and the ends; parameters that also matter elsewhere are left out.

    Args:
        program: Says what placeholders stand for.
        graph: Its graph without changes.
        names: Of the parameters.
        ends: The last operations.
    """
    ancestors: set[Node] = set()
    open_nodes = list(ends)
    while open_nodes:
        node = open_nodes.pop()
        if node not in ancestors:
            ancestors.add(node)
            open_nodes += node.all_input_nodes
    params = {program.names[node.name]: node for node in graph.nodes if program.names.get(node.name) in names}
    params = {name: node for name, node in params.items() if node.users and ancestors.issuperset(node.users)}
    reached, nodes, entering = {*params.values()}, list[Node](), dict[Node, None]()
    for node in graph.nodes:
        if node.op == "call_function" and node in ancestors and not reached.isdisjoint(node.all_input_nodes):
            reached.add(node)
            nodes.append(node)
            entering |= dict.fromkeys(operand for operand in node.all_input_nodes if operand not in reached)
    return Cut(params, nodes, list(entering))
