"""Frozen records: what hooks return, and what adapters say about blocks. No torch here, so that listing is fast."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from paramtrans.errors import SpecMismatch

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Component:
    """One thing a plugin offers, returned by a hook and resolved only when a config names it.

    >>> Component("mixer", "MLP-Mixer over parameter tokens", "paramtrans_translators.mixer:Mixer")
    Component(name='mixer', summary='MLP-Mixer over parameter tokens', target='paramtrans_translators.mixer:Mixer')
    """

    name: str
    """What configs call it: lower-case snake case."""
    summary: str
    """One line for `paramtrans plugins`."""
    target: str
    """Where the class is: `package.module:Attribute`."""


class TensorKind(StrEnum):
    """What a tensor of a block is for; the `NORM_` kinds belong to a normalisation layer."""

    WEIGHT = "weight"
    BIAS = "bias"
    NORM_WEIGHT = "norm_weight"
    NORM_BIAS = "norm_bias"
    NORM_MEAN = "norm_mean"
    NORM_VARIANCE = "norm_variance"


@dataclass(frozen=True)
class TensorSpec:
    """One tensor of a block, named as in `state_dict`; `shape` is that of one model, without the models axis."""

    name: str
    shape: tuple[int, ...]
    kind: TensorKind = TensorKind.WEIGHT

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    @property
    def positive(self) -> bool:
        """Whether a translator must write values above zero here (a running variance)."""
        return self.kind is TensorKind.NORM_VARIANCE

    @property
    def trained(self) -> bool:
        """Whether an optimiser moves it; running statistics follow the data instead."""
        return self.kind not in (TensorKind.NORM_MEAN, TensorKind.NORM_VARIANCE)


@dataclass(frozen=True)
class SymmetryMember:
    """One axis of one tensor that a symmetry group acts on.

    Permuting the group reorders this axis. Rescaling unit i by a > 0 multiplies slice i by a**scale.
    """

    tensor: str
    axis: int
    scale: int = 0


@dataclass(frozen=True)
class SymmetryGroup:
    """Units that may be permuted, with `rescale` scaled by positive numbers, and with `signs` by -1.

    The block's function stays.
    """

    name: str
    size: int
    members: tuple[SymmetryMember, ...]
    rescale: bool = False
    width: int = 1
    """Values of one unit, one behind the other along each member's axis: those of an attention head, for instance."""
    signs: bool = False
    """Whether units may change their sign: what stands between writer and reader is odd, as tanh and products are."""
    further: tuple[tuple[SymmetryMember, ...], ...] = ()
    """Further scales of the same units, each with its members: where `rescale`, a unit has a second positive factor
    between a depthwise convolution and what reads it."""

    @property
    def values(self) -> int:
        """Size of each member's axis."""
        return self.size * self.width


@dataclass(frozen=True)
class RotationGroup:
    """Values that are seen by products of two layers alone, such as those of queries and keys.

    Those of each unit (a head) may be mixed by one orthogonal matrix in all members; their `scale` says nothing here.
    """

    name: str
    size: int
    """Units, each of which has a matrix of its own."""
    width: int
    """Values of one unit, one behind the other along each member's axis."""
    members: tuple[SymmetryMember, ...]

    @property
    def values(self) -> int:
        """Size of each member's axis."""
        return self.size * self.width


@dataclass(frozen=True)
class Reader:
    """A Linear or convolution of a block that reads hidden units; translators may solve for it."""

    layer: str
    """Its name. The units it reads are those of the symmetry group that runs over axis 1 of its weight."""
    norm: str | None = None
    """Name of the BatchNorm between it and the next units or the end of the branch, where there is one."""


@dataclass(frozen=True)
class BlockSpec:
    """The tensors of one kind of block at fixed sizes, in `state_dict` order, and the symmetries among them."""

    tensors: tuple[TensorSpec, ...]
    symmetries: tuple[SymmetryGroup, ...] = ()
    stream: tuple[SymmetryMember, ...] = ()
    """Axes that run over the block's own channels, which enter and leave it. Permuting them together with the channels
    of input and output leaves the function unchanged; former and latter have to follow."""
    token_width: int = 0
    """Natural number of values in a token (a convolution's kernel area); 0: the translator chooses."""

    rotations: tuple[RotationGroup, ...] = ()

    @property
    def numel(self) -> int:
        """Values in one block, running statistics included."""
        return sum(tensor.numel for tensor in self.tensors)

    @property
    def parameters(self) -> int:
        """Trained values in one block, the number papers quote."""
        return sum(tensor.numel for tensor in self.tensors if tensor.trained)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(tensor.name for tensor in self.tensors)

    def tensor(self, name: str) -> TensorSpec:
        """The tensor called `name`.

        Args:
            name: As in `state_dict`.

        Returns:
            What is known of it.

        Raises:
            KeyError: there is none.
        """
        return {tensor.name: tensor for tensor in self.tensors}[name]


@dataclass(frozen=True, init=False)
class FeatureSpec:
    """Shape of features for one example, without the batch axis, and which of its axes runs over the channels.

    >>> image, signal, row = FeatureSpec(6, 14, 14), FeatureSpec(8, 64), FeatureSpec(32)
    >>> tokens = FeatureSpec(16, 24, channel_axis=1)
    >>> tokens.channels, str(tokens)
    (24, '16×24')
    """

    shape: tuple[int, ...]
    channel_axis: int

    def __init__(self, *shape: int, channel_axis: int = 0) -> None:
        if channel_axis not in range(len(shape)) or min(shape) < 1:
            raise SpecMismatch(f"features of shape {list(shape)} have no axis {channel_axis} of channels")
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "channel_axis", channel_axis)

    @property
    def channels(self) -> int:
        return self.shape[self.channel_axis]

    def __str__(self) -> str:
        return "×".join(map(str, self.shape))


@dataclass(frozen=True)
class PluginSource:
    """How another process comes by the same plugins."""

    key: str
    """Names the registry itself, in the process that it is in."""
    entry_points: bool = False
    """Whether those of installed distributions are among them."""
    files: tuple[str, ...] = ()
    """Paths of one-file plugins."""
    modules: tuple[tuple[str, str, str], ...] = ()
    """Modules that were registered by hand: name, and the distribution and version that provide it."""
    absent: tuple[str, ...] = ()
    """What no other process can make, and why, a line each."""


@dataclass(frozen=True)
class RunInfo:
    """What lifecycle hooks are told about a run."""

    dir: Path
    config: dict[str, Any]
