"""What is known of values in a graph, and how rules for operations are written."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from torch import Tensor
from torch.fx import Node
from torch.utils._pytree import tree_flatten

from paramtrans.networks.graph.labels import Facts, Label, axes_of

Shape = tuple[int, ...]


@dataclass
class Value:
    """What is known of a value in the graph."""

    shape: Shape
    labels: list[Label] = field(default_factory=list)
    known: Tensor | None = None
    """Its elements, where they depend on neither the network's inputs nor its trained parameters."""
    tensor: str | None = None
    """Name of the network's tensor that it is, unchanged."""


@dataclass(frozen=True)
class Contraction:
    """A sum over units: where an operation multiplies and adds up over an axis that labels run over."""

    node: Node
    operand: int
    """Which argument of the operation has the units."""
    label: Label
    """The label that is summed over, as the operand has it."""
    weight: str | None
    """Name of the parameter that it is multiplied with, where it is one."""


@dataclass(frozen=True)
class Reduction:
    """A mean or a normalisation over an axis that labels run over, computed over the units that stay alone."""

    node: Node
    label: Label
    """The label of its first argument."""
    axis: int
    """The one axis that this label runs over."""


@dataclass
class State:
    """What rules write to."""

    facts: Facts
    stream: bool = False
    """Whether units that a mean or a normalisation is computed over may go; else they are tied."""
    contractions: list[Contraction] = field(default_factory=list)
    reductions: list[Reduction] = field(default_factory=list)
    unknown: dict[str, Node] = field(default_factory=dict)
    """Operations that no rule is for, each with the first place where it pinned labels."""


Rule = Callable[[State, Node, list[Any], dict[str, Any]], Any]
"""Arguments with `Value` in place of each tensor → the labels of what comes out, or a list of these for several."""


AnyRule = TypeVar("AnyRule", bound=Callable[..., Any])


class Rules(dict[str, AnyRule]):
    """Rules by the names of operations."""

    def __call__(self, names: str) -> Callable[[AnyRule], AnyRule]:
        """Marks the rule for operations of these names, between spaces."""

        def mark(function: AnyRule) -> AnyRule:
            self.update(dict.fromkeys(names.split(), function))
            return function

        return mark


def name_of(node: Node) -> str:
    """The name of an operation: `conv2d` for `aten.conv2d.default`; in place or not, it is the same."""
    if node.target is operator.getitem:
        return "getitem"
    name = str(getattr(node.target, "_opname", None) or getattr(node.target, "__name__", node.target))
    name = str(node.target).split(".")[1] if str(node.target).startswith("aten.") else name
    return name.removesuffix("_") if not name.startswith("__") else name


def values_in(arguments: Any) -> list[Value]:
    """The values among arguments."""
    return [leaf for leaf in tree_flatten(arguments)[0] if isinstance(leaf, Value)]


def pin_all(state: State, node: Node, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Label]:
    """The rule for operations that have none: no unit that goes into them can go."""
    for value in values_in((args, kwargs)):
        for label in value.labels:
            state.facts.pin(label)
            state.unknown.setdefault(name_of(node), node)
    return []


def spread(value: Value, ndim: int, axis: int) -> Value:
    """A vector as a value that runs over one axis.

    Args:
        value: The vector, `[n]`.
        ndim: Axes of the result.
        axis: The axis that the vector runs over; the others have size 1.
    """
    shape = tuple(value.shape[0] if i == axis % ndim else 1 for i in range(ndim))
    return Value(shape, [label.view(shape) for label in value.labels if label.ndim == 1], tensor=value.tensor)


def tied(state: State, value: Value, axes: Sequence[int] | range) -> list[Label]:
    """Labels of a value of which something is computed over axes, such as a maximum: units along them go together."""
    for label in value.labels:
        state.facts.tie(label, axes)
    return value.labels


def reduced(state: State, node: Node, value: Value, axes: Sequence[int] | range) -> list[Label]:
    """Labels of a value of which a mean or a norm is computed over axes: tied, unless units of streams may go."""
    for label in value.labels:
        label_axes = axes_of(label)
        if state.stream and len(label_axes) == 1 and label_axes[0] in axes:
            state.reductions.append(Reduction(node, label, label_axes[0]))
        else:
            state.facts.tie(label, axes)
    return value.labels
