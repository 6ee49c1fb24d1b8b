"""Labels carried through all operations of a captured network."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.utils._pytree import tree_flatten, tree_map

from paramtrans.networks.graph.capture import Program
from paramtrans.networks.graph.labels import Facts, Label, axes_of
from paramtrans.networks.graph.operators import Contraction, Reduction, State, Value, name_of, pin_all
from paramtrans.networks.graph.rules.elementwise import FILLING
from paramtrans.networks.graph.rules.table import RULES

OUTPUT, HOOK = "the network's output", "what a hook reads"
KNOWN_ELEMENTS = 2**20
"""Values that depend on constants alone are computed up to this size, as numbers of elements may be among them."""


@dataclass(frozen=True)
class Labelled:
    """A program with what is known of its units."""

    program: Program
    facts: Facts
    axes: dict[str, list[Tensor]]
    """For each tensor of the network the atoms of each of its axes."""
    values: dict[str, Any]
    """For each node what is known of its value; lists for several."""
    contractions: list[Contraction]
    reductions: list[Reduction]
    unknown: dict[str, Node]


@torch.no_grad()
def propagate(program: Program, pinned: Sequence[Node] = (), stream: bool = False) -> Labelled:
    """Carry labels from the axes of all parameters and buffers through a program to its outputs, which are pinned.

    Args:
        program: The program.
        pinned: Other nodes whose results are pinned.
        stream: Whether units that a mean or a normalisation is computed over may go.
    """
    state = State(Facts(), stream)
    axes = {name: [state.facts.fresh(size) for size in tensor.shape] for name, tensor in program.tensors.items()}
    values: dict[str, Any] = {}
    for node in program.nodes:
        if node.op == "placeholder":
            values[node.name] = _placeholder(program, node, axes)
        elif node.op == "call_function":
            state.facts.reason = name_of(node)
            values[node.name] = _operation(state, node, values)
    for number, node in enumerate((*program.outputs, *pinned)):
        state.facts.reason = OUTPUT if number < len(program.outputs) else HOOK
        for value in tree_flatten(values.get(node.name))[0]:
            for label in value.labels if isinstance(value, Value) else ():
                state.facts.pin(label)
    return Labelled(program, state.facts, axes, values, state.contractions, state.reductions, state.unknown)


def _placeholder(program: Program, node: Node, axes: dict[str, list[Tensor]]) -> Value:
    name = program.names.get(node.name)
    if name is None:
        constant = program.constants.get(node.name)
        shape = tuple(getattr(node.meta.get("val"), "shape", ()))
        return Value(shape, known=constant if isinstance(constant, Tensor) else None)
    tensor = program.tensors[name]
    labels = [
        atoms.view([-1 if axis == own_axis else 1 for axis in range(tensor.ndim)])
        for own_axis, atoms in enumerate(axes[name])
    ]
    constant = tensor if not tensor.is_floating_point() and tensor.numel() <= KNOWN_ELEMENTS else None
    return Value(tuple(tensor.shape), [label for label in labels if axes_of(label)], constant, name)


def _operation(state: State, node: Node, values: dict[str, Any]) -> Any:
    concrete: tuple[list[Any], dict[str, Any]] = tree_map(
        lambda leaf: values.get(leaf.name) if isinstance(leaf, Node) else leaf,  # none of a part of the graph
        (list(node.args), dict(node.kwargs)),
        is_leaf=lambda leaf: isinstance(leaf, Node),
    )
    args, kwargs = concrete
    if node.target is operator.getitem:
        return args[0][args[1]]
    result = node.meta.get("val")
    tensors = [leaf for leaf in tree_flatten((args, kwargs))[0] if isinstance(leaf, Value)]
    labelled = any(value.labels for value in tensors) or name_of(node) in FILLING
    rule = RULES.get(name_of(node), pin_all)
    try:
        labels = rule(state, node, list(args), kwargs) if labelled else None
    except (IndexError, RuntimeError, ValueError, TypeError, AttributeError, KeyError):
        labels = pin_all(state, node, args, kwargs)  # a form of the operation that its rule does not know
    elements_of = _known(node, args, kwargs) if _constant(tensors) else None
    if isinstance(result, list | tuple):
        several = labels if labels and isinstance(labels[0], list) else [[] for _ in result]
        several = [*several, *([] for _ in range(len(result) - len(several)))]
        knowns = elements_of if isinstance(elements_of, list | tuple) else [None] * len(result)
        return [
            Value(tuple(getattr(leaf, "shape", ())), labels_of, elements)
            for leaf, labels_of, elements in zip(result, several, knowns, strict=True)
        ]
    if not isinstance(result, Tensor):
        return Value((), [])
    return Value(tuple(result.shape), _checked(labels or [], tuple(result.shape)), elements_of)


def _checked(labels: list[Label], shape: tuple[int, ...]) -> list[Label]:
    for label in labels:
        if label.ndim != len(shape) or any(a not in (1, b) for a, b in zip(label.shape, shape, strict=True)):
            raise AssertionError(f"a label of shape {list(label.shape)} for a value of {list(shape)}")
    return labels


def _constant(tensors: list[Value]) -> bool:
    return all(value.known is not None for value in tensors)


def _known(node: Node, args: list[Any], kwargs: dict[str, Any]) -> Any:
    """What an operation gives, where all that it is given is known and small."""
    result = node.meta.get("val")
    sizes = [leaf.numel() for leaf in tree_flatten(result)[0] if isinstance(leaf, Tensor)]
    if sum(sizes) > KNOWN_ELEMENTS:
        return None
    concrete = tree_map(
        lambda leaf: leaf.known.clone() if isinstance(leaf, Value) and leaf.known is not None else leaf, (args, kwargs)
    )
    try:
        return node.target(*concrete[0], **concrete[1])  # type: ignore[operator]
    except Exception:
        return None
