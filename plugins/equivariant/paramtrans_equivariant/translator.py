"""Axial attention over the grid of units and channels, writing a change to a block that is sane from the start."""

from __future__ import annotations

from copy import copy
from typing import ClassVar, Literal, Self

import torch
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator
from torch import Tensor, nn

from paramtrans.blocks import BlockAdapter
from paramtrans.errors import SpecMismatch
from paramtrans.hosts import Params
from paramtrans.learned import LearnedTranslator, before_positive, positive, template
from paramtrans.options import BaseOptions, Trials
from paramtrans.protocols import Context
from paramtrans.specs import TensorKind
from paramtrans.stacked import block_stacked
from paramtrans.symmetry import balance
from paramtrans_equivariant.grid import Grid
from paramtrans_equivariant.layers import AxialLayer, Embed, Ranks
from paramtrans_equivariant.probing import Errors, OwnProbes, Readout, Seen


class EquivariantOptions(BaseOptions):
    """Sizes, what is read beside the block, and the block whose change is learned."""

    layers: PositiveInt = Field(3, le=1000)
    """Layers of attention in each round."""
    width: PositiveInt = 64
    """Values of a cell inside the translator."""
    heads: PositiveInt = 4
    """Attention heads."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Share of values that a layer drops in training."""
    surroundings: NonNegativeInt = 0
    """Values read of former and latter for each channel, as many as the task declares in `stream` (25 for `mnist`);
    0: the block alone is read."""
    base: Literal["auto", "kept", "default"] = "auto"
    """What the output is added to. `kept`: the strongest units of the source, where both blocks are of one family; the
    output is zero at first. `default`: each tensor's mean in a default initialisation, so that the output starts as
    a default initialisation does. `auto`: `kept` where it is possible."""
    probes: NonNegativeInt = 0
    """Network inputs that the translator has as weights of its own, noise at first. The target's last layer, where its
    adapter names one as `readout`, is then not predicted but solved for on them, by ridge regression."""
    input: tuple[PositiveInt, ...] = ()
    """Shape of a network input, such as [1, 28, 28]; needed with `probes`."""
    ridge: PositiveFloat = 1e-3
    """Strength of that regression's ridge, relative to the mean square of what is read."""
    weigh: bool = False
    """Whether, on these probes, each position counts by how much the network's outputs depend on it."""
    rounds: PositiveInt = Field(1, le=100)
    """How often the block is written. From the second time on the translator also reads the block so far, and the
    gradient of its error on the probes. More than one needs `probes`."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.width % self.heads:
            raise ValueError("width must be a multiple of heads")
        if self.probes and not self.input:
            raise ValueError("probes need input, the shape of a network input")
        if self.rounds > 1 and not self.probes:
            raise ValueError("more than one of rounds needs probes")
        return self


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
        self._fit(source, target)
        width, reads = options.width, self.reads
        self.embed = nn.ModuleDict({_key(g): Embed(reads.features(g), width) for g in reads.groups})
        self.embed_loose = Embed(reads.features(None), width) if reads.loose else None
        self.embed_surroundings = Embed(options.surroundings, width) if options.surroundings else None
        self.ranks = nn.ModuleDict({_key(g): Ranks(width) for g in self.writes.groups})
        self.rounds = nn.ModuleList(
            Round(options, self.writes, first=i == 0, silent=self.keeps) for i in range(options.rounds)
        )
        self.probes = OwnProbes(options.probes, options.input, options.weigh) if options.probes else None
        base, scale = template(target, seed=0)
        for tensor in target.spec.tensors:
            # One number for all units and channels, so that it takes no side among them.
            level = torch.zeros(()) if tensor.kind is TensorKind.WEIGHT else base[tensor.name].mean()
            self.register_buffer(_buffer("base", tensor.name), level)
            self.register_buffer(_buffer("scale", tensor.name), scale[tensor.name].mean())

    def _fit(self, source: BlockAdapter, target: BlockAdapter) -> None:
        """Set all that depends on the sizes of the blocks; no weight does."""
        self.source, self.target = source, target
        self.reads, self.writes = Grid(source.reading), Grid(target.spec)
        if self.writes.channels not in (1, self.reads.channels):
            raise SpecMismatch(
                f"the source's stream has {self.reads.channels} channels, the target's {self.writes.channels}; "
                "the equivariant translator needs both adapters to declare `stream` alike"
            )
        self.keeps = self.options.base != "default" and self._can_keep(required=self.options.base == "kept")
        self.run_source = block_stacked(source)
        self.readout = Readout(target, self.options.ridge) if self.options.probes and target.readout else None
        self.errors = Errors(target) if self.options.rounds > 1 else None

    def resized(self, source: BlockAdapter, target: BlockAdapter) -> Self:
        other = copy(self)  # its modules are these
        other._fit(source, target)
        for what, one, grid in (("source", self.reads, other.reads), ("target", self.writes, other.writes)):
            if one.kinds() != grid.kinds():
                raise SpecMismatch(f"the {what} block is of another family than the one the translator was made for")
        return other

    def start(self, reading: Params, context: Context) -> None:
        reading = balance(reading, self.source.reading)
        for group in self.reads.groups:
            self._embed(group).start(self.reads.read(reading, group))
        if self.embed_loose is not None:
            self.embed_loose.start(self.reads.read(reading, None))
        if self.embed_surroundings is not None:
            self.embed_surroundings.start(self._surroundings(context))
        if self.keeps:
            for name in self.target.spec.names:
                self.get_buffer(_buffer("scale", name)).copy_(reading[name].std())

    def forward(self, reading: Params, context: Context | None = None) -> Params:
        reading = balance(reading, self.source.reading)
        seen = self._seen(context)
        order = torch.cat([self.reads.strength(reading, g) for g in self.reads.groups], dim=1).argsort(
            dim=1, descending=True, stable=True
        )
        source = self._source_cells(reading, context)
        target = self._target_cells(source, order)
        block = self._kept(reading, order) if self.keeps else self._for_each("base", len(source))
        scale = self._for_each("scale")
        for turn in self.rounds:
            assert isinstance(turn, Round)
            if self.errors is not None and seen is not None and not turn.first:
                scaled = {name: block[name] / scale[name] for name in block}
                target = target + turn.read(self.writes, scaled, self.errors(block, seen))
            source, target = turn(source, target)
            change = turn.write(self.writes, target)
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

    def _target_cells(self, source: Tensor, order: Tensor) -> Tensor:
        """Cells of all target units as they begin: the source's in the given order, with each one's rank."""
        models, units = torch.arange(len(source), device=source.device)[:, None], source.shape[1]
        cells = []
        for group, count in self.writes.units.items():
            chosen = order[:, torch.arange(count, device=order.device) % units]
            cells.append(source[models, chosen] + self.ranks[_key(group)](count)[:, None])
        return torch.cat(cells, dim=1)

    def _kept(self, reading: Params, order: Tensor) -> Params:
        """The source's strongest units, some of them twice in a wider target, as a block (before `positive`)."""
        (group, count), *_ = self.writes.units.items()
        models = torch.arange(len(order), device=order.device)[:, None]
        chosen = order[:, torch.arange(count, device=order.device) % order.shape[1]]
        kept = {}
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
        found = context.hosts.surroundings()
        if found.shape[2] != self.options.surroundings:
            raise SpecMismatch(
                f"translator.surroundings is {self.options.surroundings}, but the task declares {found.shape[2]} values"
            )
        return found

    def _embed(self, group: str) -> Embed:
        embed = self.embed[_key(group)]
        assert isinstance(embed, Embed)
        return embed

    def _for_each(self, what: str, models: int | None = None) -> Params:
        """A number for each tensor of the target, or tensors of that number for so many models."""
        numbers = {name: self.get_buffer(_buffer(what, name)) for name in self.target.spec.names}
        if models is None:
            return numbers
        return {t.name: numbers[t.name].expand(models, *t.shape) for t in self.target.spec.tensors}

    def _can_keep(self, required: bool) -> bool:
        """Whether the target's tensors are the source's but for the number of units."""
        fits = len(self.writes.units) == 1 and self.writes.kinds() <= self.reads.kinds()
        if required and not fits:
            raise SpecMismatch('base = "kept" needs a target of the source\'s family; use "default"')
        return fits


class Round(nn.Module):
    """Attention over source and target cells together, and the writing of a change of the target."""

    def __init__(self, options: EquivariantOptions, writes: Grid, first: bool, silent: bool) -> None:
        super().__init__()
        width = options.width
        self.first = first
        self.layers = nn.ModuleList(AxialLayer(width, options.heads, options.dropout) for _ in range(options.layers))
        self.norm = nn.LayerNorm(width)
        sizes = {_key(group): writes.features(group) for group in writes.groups}
        self.heads = nn.ModuleDict({key: nn.Linear(width, size) for key, size in sizes.items()})
        self.head_loose = nn.Linear(width, writes.features(None)) if writes.loose else None
        self.embed = None if first else nn.ModuleDict({key: nn.Linear(2 * n, width) for key, n in sizes.items()})
        if silent or not first:
            # A working block is there already, and training starts at it.
            for head in [*self.heads.values(), self.head_loose]:
                if isinstance(head, nn.Linear):
                    nn.init.zeros_(head.weight)
                    nn.init.zeros_(head.bias)

    def forward(self, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Cells `[models, units, channels, width]` → the same."""
        cells = torch.cat([source, target], dim=1)
        for layer in self.layers:
            cells = layer(cells)
        return cells[:, : source.shape[1]], cells[:, source.shape[1] :]

    def read(self, writes: Grid, block: Params, errors: Params) -> Tensor:
        """The target so far and what is wrong with it, embedded: `[models, units, channels, width]`."""
        assert self.embed is not None
        cells = []
        for group in writes.groups:
            values = torch.cat([writes.read(block, group), writes.read(errors, group)], dim=-1)
            cells.append(self.embed[_key(group)](values))
        return torch.cat(cells, dim=1)

    def write(self, writes: Grid, target: Tensor) -> Params:
        """The target units' cells as a change of the target's tensors."""
        cells = self.norm(target)
        change: Params = {}
        for group, part in zip(writes.units, cells.split(list(writes.units.values()), dim=1), strict=True):
            change |= writes.write(self.heads[_key(group)](part), group)
        if self.head_loose is not None:
            change |= writes.write(self.head_loose(cells.mean(1, keepdim=True)), None)
        return change


def _key(group: str) -> str:
    """A group's name in a module dictionary, whose own methods are no names."""
    return f"group_{group}"


def _buffer(what: str, name: str) -> str:
    """A buffer's name; those of modules may not hold dots."""
    return f"{what}_{name}".replace(".", "_")
