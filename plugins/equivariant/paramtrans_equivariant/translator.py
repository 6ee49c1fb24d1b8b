"""Axial attention over the grid of units and channels, writing a change to a block that is sane from the start."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

import torch
from einops import rearrange
from pydantic import Field, NonNegativeInt, PositiveInt, model_validator
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from paramtrans.blocks import BlockAdapter
from paramtrans.errors import SpecMismatch
from paramtrans.hosts import Params
from paramtrans.learned import LearnedTranslator, before_positive, positive, template
from paramtrans.options import BaseOptions
from paramtrans.protocols import Context
from paramtrans.specs import TensorKind
from paramtrans_equivariant.grid import Grid


class EquivariantOptions(BaseOptions):
    """Sizes, what is read beside the block, and the block whose change is learned."""

    layers: PositiveInt = Field(3, le=1000)
    width: PositiveInt = 64
    """Values of a cell inside the translator."""
    heads: PositiveInt = 4
    dropout: float = Field(0.0, ge=0, lt=1)
    surroundings: NonNegativeInt = 0
    """Values read of former and latter for each channel, as many as the task declares in `stream` (25 for `mnist`);
    0: the block alone is read."""
    base: Literal["auto", "kept", "default"] = "auto"
    """What the output is added to. `kept`: the strongest units of the source, where both blocks are of one family; the
    output is zero at first. `default`: each tensor's mean in a default initialisation, so that the output starts as
    a default initialisation does. `auto`: `kept` where it is possible."""

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if self.width % self.heads:
            raise ValueError("width must be a multiple of heads")
        return self


class Equivariant(LearnedTranslator):
    """Every cell of the source and of the target is a token; attention runs along units, then along channels.

    Permuting the source's hidden units changes nothing; permuting the channels of the residual stream (and of former
    and latter with them) permutes those of the target alike. Target units are told apart by a learned query each, added
    to a unit of the source, the strongest first.
    """

    Options: ClassVar[type[BaseOptions]] = EquivariantOptions
    options: EquivariantOptions

    def __init__(self, options: EquivariantOptions, source: BlockAdapter, target: BlockAdapter) -> None:
        super().__init__(options, source, target)
        self.reads, self.writes = Grid(source.reading), Grid(target.spec)
        if self.writes.channels not in (1, self.reads.channels):
            raise SpecMismatch(
                f"the source's stream has {self.reads.channels} channels, the target's {self.writes.channels}; "
                "the equivariant translator needs both adapters to declare `stream` alike"
            )
        self.keeps = options.base != "default" and self._can_keep(required=options.base == "kept")
        width, reads, writes = options.width, self.reads, self.writes
        self.embed = nn.ModuleDict({_key(g): Embed(reads.features(g), width) for g in reads.groups})
        self.embed_loose = Embed(reads.features(None), width) if reads.loose else None
        self.embed_surroundings = Embed(options.surroundings, width) if options.surroundings else None
        self.queries = nn.ParameterDict({_key(g): torch.randn(n, width) for g, n in writes.units.items()})
        self.layers = nn.ModuleList(AxialLayer(options) for _ in range(options.layers))
        self.norm = nn.LayerNorm(width)
        self.write = nn.ModuleDict({_key(g): self._head(g) for g in writes.groups})
        self.write_loose = self._head(None) if writes.loose else None
        base, scale = template(target, seed=0)
        for tensor in target.spec.tensors:
            # One number for all units and channels, so that it takes no side among them.
            level = torch.zeros(()) if tensor.kind is TensorKind.WEIGHT else base[tensor.name].mean()
            self.register_buffer(_buffer("base", tensor.name), level)
            self.register_buffer(_buffer("scale", tensor.name), scale[tensor.name].mean())

    def start(self, reading: Params, context: Context) -> None:
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
        source = self._source_cells(reading, context)
        models, units = torch.arange(len(source))[:, None], source.shape[1]
        order = torch.cat([self.reads.strength(reading, g) for g in self.reads.groups], dim=1).argsort(
            dim=1, descending=True, stable=True
        )
        target = [
            source[models, order[:, torch.arange(len(query)) % units]] + query[:, None]
            for query in self.queries.values()
        ]
        cells = torch.cat([source, *target], dim=1)
        for layer in self.layers:
            cells = layer(cells)
        change = self._written(self.norm(cells[:, units:]))
        base = self._kept(reading, order) if self.keeps else self._for_each("base")
        scale = self._for_each("scale")
        return positive({n: base[n] + scale[n] * change[n] for n in self.target.spec.names}, self.target.spec)

    def _source_cells(self, reading: Params, context: Context | None) -> Tensor:
        """Embedded cells of all source units, `[models, units, channels, width]`."""
        cells = torch.cat([self._embed(g)(self.reads.read(reading, g)) for g in self.reads.groups], dim=1)
        if self.embed_loose is not None:
            cells = cells + self.embed_loose(self.reads.read(reading, None))
        if self.embed_surroundings is not None:
            cells = cells + self.embed_surroundings(self._surroundings(context))[:, None]
        return cells

    def _written(self, cells: Tensor) -> Params:
        """The target units' cells, `[models, units, channels, width]`, as a change of the target's tensors."""
        parts = cells.split(list(self.writes.units.values()), dim=1)
        change: Params = {}
        for group, part in zip(self.writes.units, parts, strict=True):
            change |= self.writes.write(self.write[_key(group)](part), group)
        if self.write_loose is not None:
            change |= self.writes.write(self.write_loose(cells.mean(1, keepdim=True)), None)
        return change

    def _kept(self, reading: Params, order: Tensor) -> Params:
        """The source's strongest units, as a target block (before `positive`)."""
        (group, count), *_ = self.writes.units.items()
        models = torch.arange(len(order))[:, None]
        kept = {}
        for place in self.writes.groups[group]:
            name = place.tensor.name
            kept[name] = place.tensor_of(self.reads.place(name).cells(reading[name])[models, order[:, :count]])
        kept |= {place.tensor.name: reading[place.tensor.name] for place in self.writes.loose}
        return before_positive(kept, self.target.spec)

    def _surroundings(self, context: Context | None) -> Tensor:
        """What stands around the slot, `[models, channels, values]`."""
        if context is None or context.hosts is None:
            raise SpecMismatch("this translator reads former and latter too; give it a context with the hosts")
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

    def _for_each(self, what: str) -> Params:
        return {name: self.get_buffer(_buffer(what, name)) for name in self.target.spec.names}

    def _head(self, group: str | None) -> nn.Linear:
        """Writes a group's cells; nothing at first where the base is a working block."""
        head = nn.Linear(self.options.width, self.writes.features(group))
        if self.keeps:
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)
        return head

    def _can_keep(self, required: bool) -> bool:
        """Whether the target's tensors are the source's but for the number of units."""
        (group, count), *more = self.writes.units.items()
        same_family = self.writes.kinds() <= self.reads.kinds()
        fits = not more and same_family and count <= self.reads.units[group]
        if required and not fits:
            raise SpecMismatch('base = "kept" needs a target of the source\'s family with no more units; use "default"')
        return fits


class Embed(nn.Module):
    """Standardises values by what they were over the training hosts, then embeds: `[..., values]` → `[..., width]`.

    Mean and deviation are taken over hosts, units and channels alike, so that equivariance is kept.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, values: int, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(values, width)
        self.register_buffer("mean", torch.zeros(values))
        self.register_buffer("deviation", torch.ones(values))

    def start(self, values: Tensor) -> None:
        flat = values.flatten(0, -2)
        self.mean.copy_(flat.mean(0))
        self.deviation.copy_(flat.std(0).clamp_min(1e-8))

    def forward(self, values: Tensor) -> Tensor:
        embedded: Tensor = self.linear((values - self.mean) / self.deviation)
        return embedded


class AxialLayer(nn.Module):
    """Attention among the units of each channel, among the channels of each unit, then an MLP on each cell.

    `[models, units, channels, width]` → the same shape.
    """

    def __init__(self, options: EquivariantOptions) -> None:
        super().__init__()
        width = options.width
        self.among_units = SelfAttention(options)
        self.among_channels = SelfAttention(options)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, 2 * width),
            nn.GELU(),
            nn.Linear(2 * width, width),
            nn.Dropout(options.dropout),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.among_units(x.transpose(1, 2)).transpose(1, 2)
        x = x + self.among_channels(x)
        return x + self.mlp(x)


class SelfAttention(nn.Module):
    """Pre-norm attention along the last axis but one: `[..., length, width]` → the same shape."""

    def __init__(self, options: EquivariantOptions) -> None:
        super().__init__()
        self.heads = options.heads
        self.norm = nn.LayerNorm(options.width)
        self.qkv = nn.Linear(options.width, 3 * options.width)
        self.out = nn.Sequential(nn.Linear(options.width, options.width), nn.Dropout(options.dropout))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = rearrange(
            self.qkv(self.norm(x)),
            "... length (three heads width) -> three ... heads length width",
            three=3,
            heads=self.heads,
        )
        mixed = scaled_dot_product_attention(q, k, v)
        return self.out(rearrange(mixed, "... heads length width -> ... length (heads width)"))


def _key(group: str) -> str:
    """A group's name in a module dictionary, whose own methods are no names."""
    return f"group_{group}"


def _buffer(what: str, name: str) -> str:
    """A buffer's name; those of modules may not hold dots."""
    return f"{what}_{name}".replace(".", "_")
