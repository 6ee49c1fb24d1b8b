"""Where a residual stream meets the rest of a network: the tensors that write it, and the layers that read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NoReturn

from torch.fx import Node

from paramtrans.networks.graph.capture import code_line, module_path

TensorAxis = tuple[str, int]
"""A tensor of the network, and one of its axes."""


class Refused(Exception):
    """Why a stream cannot be rotated."""


def refuse(reason: str, node: Node | None = None) -> NoReturn:
    """Raise `Refused` for a reason, with the module and the line of the network's code."""
    places = [module_path(node), code_line(node)] if node is not None else []
    place = ", ".join(place for place in places if place)
    raise Refused(f"{reason} ({place})" if place else reason)


@dataclass(frozen=True)
class Stream:
    """A residual stream: which axes of tensors run over its units."""

    axes: Mapping[str, tuple[int, ...]]
    """For each tensor that holds it, the axes along which its units lie."""
    size: int
    """Units."""


@dataclass(frozen=True)
class Carrier:
    """A value that holds the stream along one axis: times some scales, plus some shifts, each a number for each unit.

    Norms over that axis, sums of carriers, and numbers that are the same for all units leave a carrier a carrier: they
    do the same in any orthonormal basis.
    """

    axis: int
    writer: Node | None = None
    """The layer that gave it, where it is nothing but that layer's output, moved and scaled."""
    scales: tuple[Node, ...] = ()
    shifts: tuple[Node, ...] = ()
    centred: bool = False
    """Whether a LayerNorm gave it."""


@dataclass(frozen=True)
class Squares:
    """Squares of a carrier's units: their sum is the same in any orthonormal basis."""

    axis: int


Role = Carrier | Squares
"""What a value is to the stream; other values have nothing of it."""


@dataclass(frozen=True)
class Read:
    """A layer that reads the stream."""

    node: Node
    tensor: str
    axis: int
    scales: tuple[Node, ...]
    """What the stream is multiplied by on the way to it."""
    shifts: tuple[Node, ...]
    bias: str | None


@dataclass
class Contacts:
    """Everything that touches a stream."""

    stream: Stream
    writes: dict[TensorAxis, list[Node | None]] = field(default_factory=dict)
    """Axes of tensors whose values go into the stream, each with the layers they are used in; None: added as it is."""
    scaled: dict[Node, tuple[Node, ...]] = field(default_factory=dict)
    """Layers whose output is scaled unit by unit before it goes into the stream."""
    reads: list[Read] = field(default_factory=list)
    scales: dict[Node, str] = field(default_factory=dict)
    """What carriers are multiplied by, and the parameter that it is made of."""
    shifts: dict[Node, str] = field(default_factory=dict)
    layer_norms: list[Node] = field(default_factory=list)
    direct: list[Node] = field(default_factory=list)
    """Operations that read the stream with no LayerNorm between."""

    @property
    def rotating(self) -> list[TensorAxis]:
        """Axes of tensors that change with the basis of the stream."""
        return list(dict.fromkeys([*self.writes, *((read.tensor, read.axis) for read in self.reads)]))
