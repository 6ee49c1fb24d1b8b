"""Which units are those of residual streams."""

from __future__ import annotations

from torch.fx import Node

from paramtrans.networks.graph.operators import Value, name_of
from paramtrans.networks.graph.propagate import Labelled
from paramtrans.networks.graph.units import Classes


def residual_classes(labelled: Labelled, classes: Classes) -> set[int]:
    """Classes of units of residual streams: a value that depends on the inputs, plus what layers make of that value.

    Args:
        labelled: A network.
        classes: Of its atoms.

    Returns:
        Classes, that of units which can never go among them where a stream is tied to the network's outputs.
    """
    residual: set[int] = set()
    program = labelled.program
    summing_nodes = {contraction.node.name for contraction in labelled.contractions}
    values: dict[str, set[str]] = {}  # all values with units that one comes from
    direct: dict[str, set[str]] = {}  # of these, those with no sum over units between
    through: dict[str, set[str]] = {}  # of these, those with one
    moving: set[str] = set()  # values that depend on the inputs
    for node in program.nodes:
        input_names = [operand.name for operand in node.all_input_nodes]
        if node.name in program.inputs or not moving.isdisjoint(input_names):
            moving.add(node.name)
        direct_inputs = {
            operand.name for operand in node.all_input_nodes if operand.name in moving and _labelled(labelled, operand)
        }
        values[node.name] = direct_inputs.union(*(values[name] for name in input_names))
        if node.name in summing_nodes:
            direct[node.name], through[node.name] = set(), values[node.name]
        else:
            direct[node.name] = direct_inputs.union(*(direct[name] for name in input_names))
            through[node.name] = set().union(*(through[name] for name in input_names))
        operands = [operand for operand in node.args if isinstance(operand, Node)][:2]
        if (
            name_of(node) not in ("add", "sub")
            or len(operands) < 2
            or any(operand.op == "placeholder" for operand in operands)
        ):
            continue
        shared = _classes(labelled, classes, operands[0]) & _classes(labelled, classes, operands[1])
        for operand, added in (operands, operands[::-1]):
            shared_sources = through[operand.name] & (direct[added.name] | ({added.name} & moving))
            if shared and any(_carries(labelled, classes, name, shared) for name in shared_sources):
                residual |= shared
    return residual


def _labelled(labelled: Labelled, node: Node) -> bool:
    value = labelled.values.get(node.name)
    return node.op != "placeholder" and isinstance(value, Value) and bool(value.labels)


def _classes(labelled: Labelled, classes: Classes, node: Node) -> set[int]:
    value = labelled.values.get(node.name)
    labels = value.labels if isinstance(value, Value) else []
    return {number for label in labels for number in classes.of[label.numpy()].ravel().tolist()}


def _carries(labelled: Labelled, classes: Classes, name: str, shared: set[int]) -> bool:
    """Whether a value that both branches come from has the units itself."""
    value = labelled.values.get(name)
    labels = value.labels if isinstance(value, Value) else []
    return any(int(classes.of[label.numpy()].ravel()[0]) in shared for label in labels)
