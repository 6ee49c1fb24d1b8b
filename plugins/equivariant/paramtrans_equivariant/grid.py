"""Blocks as grids of cells, one for each pair of a unit and a channel, and back, from declared symmetries alone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from paramtrans.api.specs import BlockSpec, TensorKind, TensorSpec
from paramtrans.api.stacking import Params
from paramtrans.errors import SpecMismatch


@dataclass(frozen=True)
class Placed:
    """A tensor, and which of its axes run over a group's units and over the channels (None: neither does)."""

    tensor: TensorSpec
    unit_axis: int | None
    channel_axis: int | None

    @cached_property
    def order(self) -> list[int]:
        """The tensor's axes: units, channels, then the rest."""
        first = [axis for axis in (self.unit_axis, self.channel_axis) if axis is not None]
        return first + [axis for axis in range(len(self.tensor.shape)) if axis not in first]

    @property
    def units(self) -> int:
        return 1 if self.unit_axis is None else self.tensor.shape[self.unit_axis]

    @property
    def channels(self) -> int:
        return 1 if self.channel_axis is None else self.tensor.shape[self.channel_axis]

    @property
    def features(self) -> int:
        """Values of one cell."""
        return self.tensor.numel // (self.units * self.channels)

    def cells(self, tensor: Tensor) -> Tensor:
        """Stacked tensor → `[models, units, channels, features]`; an axis it does not have gets size 1."""
        return tensor.permute(0, *(axis + 1 for axis in self.order)).reshape(
            len(tensor), self.units, self.channels, self.features
        )

    def tensor_of(self, cells: Tensor) -> Tensor:
        """The inverse of `cells`."""
        sizes = [self.tensor.shape[axis] for axis in self.order]
        back = sorted(range(len(self.order)), key=self.order.__getitem__)
        return cells.reshape(len(cells), *sizes).permute(0, *(axis + 1 for axis in back))


class Grid:
    """Where each value of a block stands: in cells of its groups, or of the channels alone, or between two groups.

    Raises `SpecMismatch` for a block without symmetry groups, or with a tensor that runs twice over the same units or
    over channels.
    """

    def __init__(self, spec: BlockSpec) -> None:
        if not spec.symmetries:
            raise SpecMismatch("the equivariant translator needs a block with hidden units (symmetries); try mixer")
        _check(spec)
        between = {tensor.name: pair for tensor in spec.tensors if (pair := _place_between(tensor, spec))}
        self.between = [(groups, place) for groups, place in between.values()]
        """Tensors that run over the units of two groups, whose names come first; their cells have the second's units in
        place of channels."""
        placed = {tensor.name: _place(tensor, spec) for tensor in spec.tensors if tensor.name not in between}
        self._placed = placed
        self.channels = max((place.channels for _, place in placed.values()), default=1)
        self.groups = {g.name: [p for name, p in placed.values() if name == g.name] for g in spec.symmetries}
        """For each group the tensors that run over its units and no other's."""
        self.loose = [place for name, place in placed.values() if name is None]
        """Tensors without units."""
        self.units = {group.name: group.size for group in spec.symmetries}

    def read(self, params: Params, group: str | None) -> Tensor:
        """All values of a group's cells, `[models, units, channels, features]`; of the loose ones, with one unit."""
        places = self.loose if group is None else self.groups[group]
        units = 1 if group is None else self.units[group]
        cells = [place.cells(params[place.tensor.name]) for place in places]
        return torch.cat([cell.expand(-1, units, self.channels, -1) for cell in cells], dim=-1)

    def write(self, cells: Tensor, group: str | None) -> Params:
        """The inverse of `read`: where a tensor does not run over units or channels, the mean over them."""
        places = self.loose if group is None else self.groups[group]
        params = {}
        for place, part in zip(places, cells.split([place.features for place in places], dim=-1), strict=True):
            part = part if place.unit_axis is not None else part.mean(1, keepdim=True)
            part = part if place.channel_axis is not None else part.mean(2, keepdim=True)
            params[place.tensor.name] = place.tensor_of(part)
        return params

    def place(self, name: str) -> Placed:
        """Where the tensor called `name` stands."""
        return self._placed[name][1]

    def kinds(self) -> set[tuple[object, ...]]:
        """What the tensors are, whatever the number of units: two grids whose kinds agree are of one family."""
        kinds: set[tuple[object, ...]] = {
            (name, group, place.unit_axis, place.channel_axis, place.channels, place.features)
            for name, (group, place) in self._placed.items()
        }
        return kinds | {
            (place.tensor.name, groups, place.unit_axis, place.channel_axis, place.features)
            for groups, place in self.between
        }

    def features(self, group: str | None) -> int:
        """Values in a cell of a group, or of the loose tensors."""
        return sum(place.features for place in (self.loose if group is None else self.groups[group]))

    def strength(self, params: Params, group: str) -> Tensor:
        """How much each unit can do: the product of the norms of its weights, `[models, units]`, blind to rescaling."""
        weights = [place for place in self.groups[group] if place.tensor.kind is TensorKind.WEIGHT]
        norms = [place.cells(params[place.tensor.name]).flatten(2).norm(dim=2) for place in weights]
        return torch.stack(norms).prod(0)


def _check(spec: BlockSpec) -> None:
    """Raise `SpecMismatch` for what has no place in a grid of cells."""
    if any(group.width > 1 for group in spec.symmetries):
        raise SpecMismatch(
            "units of several values, such as attention heads, cannot be read by the equivariant translator"
        )
    for tensor in spec.tensors:
        units, channels = _runs_over(tensor, spec)
        members = [member for group in spec.symmetries for member in group.members if member.tensor == tensor.name]
        if len(members) > len(units) or len(channels) > 1 or len(units) + len(channels) > 2:
            raise SpecMismatch(
                f"{tensor.name} runs twice over units or channels, which the equivariant translator cannot read"
            )


def _runs_over(tensor: TensorSpec, spec: BlockSpec) -> tuple[dict[str, int], list[int]]:
    """A tensor's axis over the units of each group, and its axes over channels."""
    units = {g.name: m.axis for g in spec.symmetries for m in g.members if m.tensor == tensor.name}
    return units, [member.axis for member in spec.stream if member.tensor == tensor.name]


def _place_between(tensor: TensorSpec, spec: BlockSpec) -> tuple[tuple[str, str], Placed] | None:
    """The two groups of a tensor, and its axes over them; None where it runs over fewer."""
    units, _ = _runs_over(tensor, spec)
    if len(units) < 2:
        return None
    first, second = units
    return (first, second), Placed(tensor, units[first], units[second])


def _place(tensor: TensorSpec, spec: BlockSpec) -> tuple[str | None, Placed]:
    """The group a tensor belongs to, and its axes."""
    units, channels = _runs_over(tensor, spec)
    group = next(iter(units), None)
    return group, Placed(tensor, units.get(group) if group else None, channels[0] if channels else None)
