"""Families of target blocks, each with weights of its own, and the rounds in which blocks of any are written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from paramtrans.api.adapter import BlockAdapter
from paramtrans.api.stacking import Params
from paramtrans_equivariant.grid import Grid, Placed
from paramtrans_equivariant.layers import AxialLayer, Between, Ranks

if TYPE_CHECKING:
    from paramtrans_equivariant.options import EquivariantOptions


@dataclass(frozen=True)
class Family:
    """One family of target blocks at one size, and what the weights are called that no other family shares."""

    number: int
    """0: the family that the translator was made for; the others follow in the order in which they were added."""
    target: BlockAdapter
    writes: Grid
    keeps: bool
    """Whether a change of the source's strongest units is written."""

    def name(self, what: str) -> str:
        """The name of a weight or module; plain for the first family, as where it is the only one."""
        return f"family{self.number}_{what}" if self.number else what

    def key(self, group: str) -> str:
        """A group's name in a module dictionary, whose own methods are no names."""
        return self.name(f"group_{group}")

    def buffer(self, what: str, name: str) -> str:
        """A buffer's name; those of modules may not hold dots."""
        return self.name(f"{what}_{name}").replace(".", "_")

    def tensor(self, name: str) -> str:
        """A tensor's name in a module dictionary."""
        return self.name(f"between_{name}").replace(".", "_")

    def by_group(self, cells: Tensor) -> dict[str, Tensor]:
        """Cells of all units, `[models, units, …]`, group by group."""
        units = self.writes.units
        return dict(zip(units, cells.split(list(units.values()), dim=1), strict=True))

    def ranks(self, width: int) -> dict[str, nn.Module]:
        """What tells the units of each group apart."""
        return {self.key(group): Ranks(width) for group in self.writes.groups}


class Round(nn.Module):
    """Attention over source and target cells together, and the writing of a change of the target.

    The attention is the same for all families; each has heads, and embeddings of the block so far, of its own.
    """

    def __init__(self, options: EquivariantOptions, family: Family, first: bool) -> None:
        super().__init__()
        self.width, self.first = options.width, first
        self.layers = nn.ModuleList(
            AxialLayer(options.width, options.heads, options.dropout) for _ in range(options.layers)
        )
        self.norm = nn.LayerNorm(options.width)
        self.heads = nn.ModuleDict()
        self.register_module("head_loose", None)  # so that the weights of one family alone keep their order
        self.embed = nn.ModuleDict()
        self.between = nn.ModuleDict()
        self.add(family)

    def add(self, family: Family) -> None:
        """Heads and embeddings for one more family."""
        writes, width = family.writes, self.width
        sizes = {family.key(group): size for group in writes.groups if (size := writes.features(group))}
        heads = {key: nn.Linear(width, size) for key, size in sizes.items()}
        self.heads.update(heads)
        if writes.loose:
            self.add_module(family.name("head_loose"), nn.Linear(width, writes.features(None)))
        if not self.first:
            self.embed.update({key: nn.Linear(2 * size, width) for key, size in sizes.items()})
        between = {
            family.tensor(place.tensor.name): Between(width, place.features, self.first) for _, place in writes.between
        }
        self.between.update(between)
        if family.keeps or not self.first:
            # A working block is there already, and training starts at it.
            loose = [self._head_loose(family)] if writes.loose else []
            for head in [*heads.values(), *loose, *(pairs.left for pairs in between.values())]:
                for parameter in head.parameters():
                    nn.init.zeros_(parameter)

    def forward(self, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Cells `[models, units, channels, width]` → the same."""
        cells = torch.cat([source, target], dim=1)
        for layer in self.layers:
            cells = layer(cells)
        return cells[:, : source.shape[1]], cells[:, source.shape[1] :]

    def read(self, family: Family, target: Tensor, block: Params, errors: Params) -> Tensor:
        """Cells of the target with the block so far and what is wrong with it: `[models, units, channels, width]`."""
        writes = family.writes
        before = family.by_group(target)
        cells = dict(before)
        for group, places in writes.groups.items():
            if places:
                values = torch.cat([writes.read(block, group), writes.read(errors, group)], dim=-1)
                cells[group] = before[group] + self.embed[family.key(group)](values)
        for (left, right), place in writes.between:
            values = torch.cat([place.cells(params[place.tensor.name]) for params in (block, errors)], dim=-1)
            to_left, to_right = self._between(family, place).read(values, before[left], before[right])
            cells[left], cells[right] = cells[left] + to_left, cells[right] + to_right
        return torch.cat(list(cells.values()), dim=1)

    def write(self, family: Family, target: Tensor) -> Params:
        """The target units' cells as a change of the target's tensors."""
        cells, writes = self.norm(target), family.writes
        by_group, change = family.by_group(cells), dict[str, Tensor]()
        for group, part in by_group.items():
            if writes.groups[group]:
                change |= writes.write(self.heads[family.key(group)](part), group)
        for (left, right), place in writes.between:
            pairs = self._between(family, place).write(by_group[left], by_group[right])
            change[place.tensor.name] = place.tensor_of(pairs)
        if writes.loose:
            change |= writes.write(self._head_loose(family)(cells.mean(1, keepdim=True)), None)
        return change

    def _between(self, family: Family, place: Placed) -> Between:
        between = self.between[family.tensor(place.tensor.name)]
        assert isinstance(between, Between)
        return between

    def _head_loose(self, family: Family) -> nn.Module:
        return self.get_submodule(family.name("head_loose"))
