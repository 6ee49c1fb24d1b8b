"""Axial attention over the grid of units and channels, writing a change to a block that is sane from the start."""

from __future__ import annotations

from copy import copy
from itertools import accumulate
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from paramtrans.api.adapter import BlockAdapter
from paramtrans.api.context import Context
from paramtrans.api.options import BaseOptions, Trials
from paramtrans.api.specs import TensorKind
from paramtrans.api.stacking import Params
from paramtrans.backends.vmap import block_stacked
from paramtrans.errors import SpecMismatch
from paramtrans.ops.symmetry import balance
from paramtrans.translators.base import LearnedTranslator, before_positive, positive, template
from paramtrans_equivariant.grid import Grid
from paramtrans_equivariant.layers import Embed
from paramtrans_equivariant.options import EquivariantOptions
from paramtrans_equivariant.probing import Errors, OwnProbes, Seen, SolvedReadout
from paramtrans_equivariant.rounds import Family, Round


class Equivariant(LearnedTranslator):
    """Every cell of the source and of the target is a token; attention runs along units, then along channels.

    Permuting or rescaling the source's hidden units changes nothing; permuting the channels of the residual stream (and
    of former and latter with them) permutes those of the target alike. No weight depends on the numbers of units:
    target units are told apart by their rank, and begin as units of the source, the strongest first.
    """

    Options: ClassVar[type[BaseOptions]] = EquivariantOptions
    options: EquivariantOptions
    trials: ClassVar[Trials] = ({"layers": 1, "width": 8, "heads": 2, "dropout": 0.5},)

    def __init__(self, options: EquivariantOptions, source: BlockAdapter, target: BlockAdapter) -> None:
        super().__init__(options, source, target)
        self.reads = Grid(source.reading)
        if self.reads.between:
            name = self.reads.between[0][1].tensor.name
            raise SpecMismatch(
                f"the source's {name} stands between two groups of units, which the equivariant translator writes but "
                "cannot read; try mixer"
            )
        family = self._family(0, target)
        self._families: tuple[Family, ...] = (family,)
        self._fit(source, family)
        width, reads = options.width, self.reads
        self.embed = nn.ModuleDict({_key(g): Embed(reads.features(g), width) for g in reads.groups})
        self.embed_loose = Embed(reads.features(None), width) if reads.loose else None
        self.embed_surroundings = Embed(options.surroundings, width) if options.surroundings else None
        self.tokens = nn.ParameterList()
        """One for each family, which its cells begin with; none as long as there is one family alone."""
        self.ranks = nn.ModuleDict(family.ranks(width))
        self.rounds = nn.ModuleList(Round(options, family, first=i == 0) for i in range(options.rounds))
        self.probes = OwnProbes(options.probes, options.input, options.weigh) if options.probes else None
        self._begin(family)

    def add_family(self, target: BlockAdapter) -> None:
        if self._number(target) is not None:
            return
        family = self._family(len(self._families), target)
        self._families = (*self._families, family)
        self.ranks.update(family.ranks(self.options.width))
        for turn in self.rounds:
            assert isinstance(turn, Round)
            turn.add(family)
        self.tokens.extend(torch.zeros(self.options.width) for _ in self._families[len(self.tokens) :])
        self._begin(family)

    @property
    def families(self) -> tuple[BlockAdapter, ...]:
        return tuple(family.target for family in self._families)

    def resized(self, source: BlockAdapter, target: BlockAdapter) -> Self:
        other = copy(self)  # its modules are these
        other.reads = Grid(source.reading)
        if other.reads.kinds() != self.reads.kinds():
            raise SpecMismatch("the source block is of another family than the one the translator was made for")
        number = self._number(target)
        if number is None:
            trained_for = "; ".join(map(_described, self.families))
            raise SpecMismatch(
                f"the target block, {_described(target)}, is of another family than those the translator was trained "
                f"for: {trained_for}"
            )
        family = other._family(number, target)
        families = {before.number: before for before in self._families} | {number: family}
        other._families = tuple(families.values())
        other._fit(source, family)
        return other

    def _family(self, number: int, target: BlockAdapter) -> Family:
        """The family of a target block, at its size; raises `SpecMismatch` where it cannot be written."""
        writes = Grid(target.spec)
        if writes.channels not in (1, self.reads.channels):
            raise SpecMismatch(
                f"the source's stream has {self.reads.channels} channels, the target's {writes.channels}; "
                "the equivariant translator needs both adapters to declare `stream` alike"
            )
        base = self.options.base
        return Family(number, target, writes, base != "default" and self._can_keep(writes, required=base == "kept"))

    def _number(self, target: BlockAdapter) -> int | None:
        """The family that a target block belongs to, whatever its size; None for one that was never added."""
        kinds = Grid(target.spec).kinds()
        return next((family.number for family in self._families if family.writes.kinds() == kinds), None)

    def _fit(self, source: BlockAdapter, family: Family) -> None:
        """Set all that depends on the blocks' sizes and the target's family; no weight does."""
        self.source, self.target, self.family, self.writes = source, family.target, family, family.writes
        self.run_source = block_stacked(source)
        reads_out = self.options.probes and self.target.readout
        self.readout = SolvedReadout(self.target, self.options.ridge) if reads_out else None
        self.errors = Errors(self.target) if self.options.rounds > 1 else None

    def _begin(self, family: Family) -> None:
        """The block whose change a family's heads write, and how far a change typically goes."""
        base, scale = template(family.target, seed=0)
        for tensor in family.target.spec.tensors:
            # One number for all units and channels, so that it takes no side among them.
            level = torch.zeros(()) if tensor.kind is TensorKind.WEIGHT else base[tensor.name].mean()
            self.register_buffer(family.buffer("base", tensor.name), level)
            self.register_buffer(family.buffer("scale", tensor.name), scale[tensor.name].mean())

    def start(self, reading: Params, context: Context) -> None:
        reading = balance(reading, self.source.reading)
        for group in self.reads.groups:
            self._embed(group).start(self.reads.read(reading, group))
        if self.embed_loose is not None:
            self.embed_loose.start(self.reads.read(reading, None))
        if self.embed_surroundings is not None:
            self.embed_surroundings.start(self._surroundings(context))
        for family in self._families:
            for name in family.target.spec.names if family.keeps else ():
                self.get_buffer(family.buffer("scale", name)).copy_(reading[name].std())

    def forward(self, reading: Params, context: Context | None = None) -> Params:
        reading = balance(reading, self.source.reading)
        seen = self._seen(context)
        strengths = {group: self.reads.strength(reading, group) for group in self.reads.groups}
        source = self._source_cells(reading, context)
        target = self._target_cells(source, strengths)
        block = self._kept(reading, strengths) if self.family.keeps else self._for_each("base", len(source))
        scale = self._for_each("scale")
        for turn in self.rounds:
            assert isinstance(turn, Round)
            if self.errors is not None and seen is not None and not turn.first:
                scaled = {name: block[name] / scale[name] for name in block}
                target = turn.read(self.family, target, scaled, self.errors(block, seen))
            source, target = turn(source, target)
            change = turn.write(self.family, target)
            block = {name: block[name] + scale[name] * change[name] for name in block}
            if self.readout is not None and seen is not None:
                block = self.readout(block, seen)
        return positive(block, self.target.spec)

    def _seen(self, context: Context | None) -> Seen | None:
        """What the slot sees on the translator's own probes, if it has any."""
        if self.probes is None:
            return None
        seen: Seen = self.probes(self.run_source, context)
        return seen

    def _source_cells(self, reading: Params, context: Context | None) -> Tensor:
        """Embedded cells of all source units, `[models, units, channels, width]`."""
        cells = torch.cat([self._embed(g)(self.reads.read(reading, g)) for g in self.reads.groups], dim=1)
        if self.embed_loose is not None:
            cells = cells + self.embed_loose(self.reads.read(reading, None))
        if self.embed_surroundings is not None:
            cells = cells + self.embed_surroundings(self._surroundings(context))[:, None]
        return cells

    def _target_cells(self, source: Tensor, strengths: dict[str, Tensor]) -> Tensor:
        """Cells of all target units as they begin: the source's, the strongest first, with each one's rank.

        Those of the same group where they are kept, else of all groups.
        """
        models, cells = torch.arange(len(source), device=source.device)[:, None], []
        starts = dict(zip(strengths, accumulate((s.shape[1] for s in strengths.values()), initial=0), strict=False))
        for group, count in self.writes.units.items():
            if self.family.keeps:
                chosen = starts[group] + _strongest(strengths[group], count)
            else:
                chosen = _strongest(torch.cat([*strengths.values()], dim=1), count)
            cells.append(source[models, chosen] + self.ranks[self.family.key(group)](count)[:, None])
        begun = torch.cat(cells, dim=1)
        return begun + self.tokens[self.family.number] if len(self.tokens) else begun

    def _kept(self, reading: Params, strengths: dict[str, Tensor]) -> Params:
        """The strongest units of each group, some of them twice in a wider target, as a block (before `positive`)."""
        kept = {}
        for group, count in self.writes.units.items():
            chosen = _strongest(strengths[group], count)
            models = torch.arange(len(chosen), device=chosen.device)[:, None]
            for place in self.writes.groups[group]:
                name = place.tensor.name
                kept[name] = place.tensor_of(self.reads.place(name).cells(reading[name])[models, chosen])
        kept |= {place.tensor.name: reading[place.tensor.name] for place in self.writes.loose}
        return before_positive(kept, self.target.spec)

    def _surroundings(self, context: Context | None) -> Tensor:
        """What stands around the slot, `[models, channels, values]`."""
        if context is None or context.hosts is None:
            raise SpecMismatch(
                "this translator reads former and latter too, so it takes hosts alone: a network of --arch "
                "task:TASK:BLOCK, or a context with hosts"
            )
        values = context.hosts.surroundings()
        if values.shape[2] != self.options.surroundings:
            count = values.shape[2]
            raise SpecMismatch(
                f"translator.surroundings is {self.options.surroundings}, but the task declares {count} values"
            )
        return values

    def _embed(self, group: str) -> Embed:
        embed = self.embed[_key(group)]
        assert isinstance(embed, Embed)
        return embed

    def _for_each(self, what: str, models: int | None = None) -> Params:
        """A number for each tensor of the target, or tensors of that number for so many models."""
        numbers = {name: self.get_buffer(self.family.buffer(what, name)) for name in self.target.spec.names}
        if models is None:
            return numbers
        return {t.name: numbers[t.name].expand(models, *t.shape) for t in self.target.spec.tensors}

    def _can_keep(self, writes: Grid, required: bool) -> bool:
        """Whether the target's tensors are the source's but for the numbers of units."""
        fits = (
            not writes.between
            and writes.units.keys() <= self.reads.units.keys()
            and writes.kinds() <= self.reads.kinds()
        )
        if required and not fits:
            raise SpecMismatch('base = "kept" needs a target of the source\'s family; use "default"')
        return fits


def _strongest(strengths: Tensor, count: int) -> Tensor:
    """Numbers of so many units, the strongest first, then from the first again: `[models, count]`."""
    order = strengths.argsort(dim=1, descending=True, stable=True)
    return order[:, torch.arange(count, device=order.device) % order.shape[1]]


def _key(group: str) -> str:
    """A group's name in a module dictionary, whose own methods are no names."""
    return f"group_{group}"


def _described(adapter: BlockAdapter) -> str:
    return f"{type(adapter).__name__} ({adapter.options})"
