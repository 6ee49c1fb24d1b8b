"""What is known of the values of a network while a stream is followed through its operations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.fx import Node

from paramtrans.networks.graph.capture import Program
from paramtrans.networks.graph.operators import name_of
from paramtrans.networks.stream.contacts import Carrier, Contacts, Read, Role, Stream, refuse
from paramtrans.networks.stream.tracing import moved_parameter, traced, unit_axis

CHECKS = ("_assert_tensor_metadata",)
"""Operations that give nothing."""


class Walk:
    """A stream followed through a program, operation by operation."""

    def __init__(self, program: Program, stream: Stream) -> None:
        self.program, self.stream = program, stream
        self.contacts = Contacts(stream)
        self.roles: dict[Node, Role | list[Any]] = {}
        """Values that have something of the stream."""
        self.constant: set[Node] = set()
        """Values that depend on no input."""

    def carrier(self, node: Any) -> Carrier | None:
        """What a value is, if it holds the stream."""
        role = self.roles.get(node) if isinstance(node, Node) else None
        return role if isinstance(role, Carrier) else None

    def settled(self, node: Node, at: Node) -> Carrier:
        """A value that goes into the stream as it is; scales of a layer's output become those of the layer.

        Args:
            node: The value.
            at: The operation that puts it into the stream.
        """
        carrier = self.carrier(node)
        if carrier is None:
            refuse(f"{name_of(at)} adds to the stream what no layer writes", at)
        if carrier.shifts or (carrier.scales and carrier.writer is None):
            refuse("the result of a norm goes back into the stream, so its weight cannot go into layers behind it", at)
        if carrier.scales and carrier.writer is not None:
            self.contacts.scaled[carrier.writer] = carrier.scales
        return carrier

    def clean(self, node: Node, at: Node) -> Carrier:
        """A value of the stream that an operation reads as it is."""
        carrier = self.carrier(node)
        if carrier is None or carrier.scales or carrier.shifts:
            refuse(f"{name_of(at)} reads the stream behind scales for each unit", at)
        if not carrier.centred:
            self.contacts.direct.append(at)
        return carrier

    def unit_size(self, node: Any, like: Node, axis: int) -> int:
        """How many units another operand has beside those of a carrier: one where it is the same for all units.

        Args:
            node: The operand.
            like: The carrier.
            axis: The axis of the carrier that its units lie along.
        """
        if not isinstance(node, Node):
            return 1
        shape, behind = shape_of(node), len(shape_of(like)) - axis
        return shape[-behind] if len(shape) >= behind else 1

    def parameter(self, node: Any) -> tuple[str, dict[int, int | None]] | None:
        """The network's tensor that a value is, moved.

        Returns:
            Its name, and for each of its axes that the units lie along the axis of the value, or None where the units
            do not lie along one in order. None where the value is something else.
        """
        name = moved_parameter(self.program, node) if isinstance(node, Node) else None
        if name is None:
            return None
        shape, axes = self.program.tensors[name].shape, self.stream.axes.get(name, ())
        numbers = {axis: traced(node, shape, axis) for axis in axes}
        return name, {a: None if n is None else unit_axis(n, self.stream.size) for a, n in numbers.items()}

    def write(self, node: Node, axis: int, writer: Node | None, at: Node) -> None:
        """A parameter's values go into the stream.

        Args:
            node: The parameter, moved.
            axis: The axis of the value that the units lie along.
            writer: The layer that it belongs to; None where it is added as it is.
            at: The operation.
        """
        parameter = self.parameter(node)
        matching = [a for a, position in parameter[1].items() if position == axis] if parameter else []
        if parameter is None or len(matching) != 1:
            refuse(f"{name_of(at)} adds to the stream what is no parameter", at)
        self.contacts.writes.setdefault((parameter[0], matching[0]), []).append(writer)

    def read(self, at: Node, entering: Node, tensor: str, axis: int, bias: Any) -> None:
        """A layer reads the stream.

        Args:
            at: The layer.
            entering: What it reads.
            tensor: Its weight.
            axis: Of the weight.
            bias: Its bias.
        """
        carrier = self.carrier(entering)
        assert carrier is not None
        if not carrier.centred:
            self.contacts.direct.append(at)
        bias_name = moved_parameter(self.program, bias) if isinstance(bias, Node) else None
        self.contacts.reads.append(Read(at, tensor, axis, carrier.scales, carrier.shifts, bias_name))

    def vector(self, node: Node, at: Node, kept_in: dict[Node, str]) -> None:
        """Note a constant with a number for each unit, made of one parameter."""
        below = [name for name in self._placeholders(node) if name is not None]
        numel = node.meta["val"].numel() if node.op == "call_function" else self._numel(node)
        if node not in self.constant or len(below) != 1 or numel != self.stream.size:
            refuse(f"{name_of(at)} combines the stream with numbers for each unit that are no parameter", at)
        kept_in[node] = below[0]

    def _numel(self, node: Node) -> int:
        name = self.program.names.get(node.name)
        return 0 if name is None else self.program.tensors[name].numel()

    def _placeholders(self, node: Node) -> set[str | None]:
        if node.op != "call_function":
            return {self.program.names.get(node.name)}
        return set().union(*(self._placeholders(operand) for operand in node.all_input_nodes))


def shape_of(node: Node) -> tuple[int, ...]:
    """The shape of a value."""
    return tuple(getattr(node.meta.get("val"), "shape", ()))


def users(node: Node) -> list[Node]:
    """Operations that use a value."""
    return [user for user in node.users if name_of(user) not in CHECKS]


Rule = Callable[[Walk, Node], Any]
"""What an operation gives, as far as the stream goes; it raises `Refused` where that is no rotation of it."""
