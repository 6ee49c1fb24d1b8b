"""Several blocks in one host, one behind the other."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import replace
from itertools import pairwise
from typing import Any, ClassVar

from pydantic import Field
from torch import nn

from paramtrans.api.adapter import BlockAdapter, BlockOptions
from paramtrans.api.options import Trials
from paramtrans.api.specs import BlockSpec, RotationGroup, SymmetryGroup, SymmetryMember
from paramtrans.api.stacking import Params, join, split
from paramtrans.errors import ConfigError, SpecMismatch
from paramtrans.plugins.registry import Registry


class SequenceOptions(BlockOptions):
    """The blocks."""

    blocks: tuple[dict[str, Any], ...] = Field(min_length=1, max_length=100)
    """Each with its name and options, such as `{ name = "conv", channels = 6, hidden = 3 }`."""


class Sequence(BlockAdapter):
    """Blocks of any kinds, each of which reads what the one before it gives; together they are translated, or trained.

    What is declared of a block holds of it here too, but for what ends a block alone: readers, and a final ReLU.
    """

    Options: ClassVar[type[BlockOptions]] = SequenceOptions
    options: SequenceOptions
    needs_registry: ClassVar[bool] = True
    trials: ClassVar[Trials] = (
        {"blocks": [{"name": "basic_block", "channels": 4}, {"name": "conv", "channels": 4, "hidden": 5}]},
        {
            "blocks": [
                {"name": "conv_chain", "channels": 4, "out": 6, "hidden": [3], "skip": "projection"},
                {"name": "conv_chain", "channels": 6, "hidden": [2]},
            ]
        },
        {
            "channels": 4,
            "blocks": [
                {"name": "heads", "channels": 4, "heads": 2, "width": 3},
                {"name": "linear_chain", "channels": 4, "hidden": [5], "norm": 1e-6},
            ],
        },
    )

    def __init__(self, options: SequenceOptions, registry: Registry) -> None:
        super().__init__(options)
        self.blocks = [_made(f"blocks.{number}", block, registry) for number, block in enumerate(options.blocks)]
        first = self.blocks[0].options.channels
        if first != options.channels:
            raise SpecMismatch(f"channels: is {options.channels}, the first block has {first}")
        if len({(block.channels_last, block.axes) for block in self.blocks}) > 1:
            raise SpecMismatch("blocks: some have their channels in another axis, or other positions, than the first")

    @property
    def channels_last(self) -> bool:  # type: ignore[override]
        return self.blocks[0].channels_last

    @property
    def axes(self) -> int:  # type: ignore[override]
        return self.blocks[0].axes

    @property
    def keeps_shape(self) -> bool:  # type: ignore[override]
        return all(block.keeps_shape for block in self.blocks)

    @property
    def token_width(self) -> int:
        return self.blocks[0].token_width

    def module(self) -> nn.Module:
        return nn.Sequential(*(block.module() for block in self.blocks))

    def symmetries(self) -> tuple[SymmetryGroup, ...]:
        return _symmetries([block.spec for block in self.blocks])

    def rotations(self) -> tuple[RotationGroup, ...]:
        return tuple(
            replace(group, name=f"{i}_{group.name}", members=_members(i, group.members))
            for i, block in enumerate(self.blocks)
            for group in block.spec.rotations
        )

    def stream(self) -> tuple[SymmetryMember, ...]:
        return self._stream([block.spec for block in self.blocks])

    def _stream(self, specs: list[BlockSpec]) -> tuple[SymmetryMember, ...]:
        """That of all blocks, where the same channels go through all of them."""
        same = all(a.options.channels == b.options.channels for a, b in pairwise(self.blocks))
        if not (same and self.keeps_shape and all(spec.stream for spec in specs)):
            return ()
        return tuple(member for i, spec in enumerate(specs) for member in _members(i, spec.stream))

    def with_sizes(self, sizes: Mapping[str, int]) -> BlockAdapter:
        other, changed = copy(self), []
        for i, block in enumerate(self.blocks):
            of_block = {name.partition("_")[2]: size for name, size in sizes.items() if name.startswith(f"{i}_")}
            changed.append(block.with_sizes(of_block) if of_block else block)
        other.blocks = changed
        described = [
            {"name": before["name"], **block.options.model_dump()}
            for before, block in zip(self.options.blocks, changed, strict=True)
        ]
        other.options = self.options.model_copy(update={"blocks": tuple(described)})
        other.__dict__.pop("spec", None)
        return other

    @property
    def reading(self) -> BlockSpec:
        specs = [block.reading for block in self.blocks]
        tensors = tuple(replace(t, name=f"{i}.{t.name}") for i, spec in enumerate(specs) for t in spec.tensors)
        return BlockSpec(tensors, _symmetries(specs), self._stream(specs), self.token_width)

    def read(self, params: Params) -> Params:
        return join({str(i): block.read(split(params, str(i))) for i, block in enumerate(self.blocks)})


def _made(path: str, block: Mapping[str, Any], registry: Registry) -> BlockAdapter:
    """One of the blocks; raises `SpecMismatch` where there is no such block, or not with these options."""
    options = dict(block)
    name = options.pop("name", None)
    if not isinstance(name, str):
        raise SpecMismatch(f'{path}: has no name; say which block it is: {{ name = "conv", … }}')
    try:
        made: BlockAdapter = registry.create("block_adapter", name, **options)
        return made
    except ConfigError as error:
        raise SpecMismatch(f"{path}: {'; '.join(error.problems)}") from error


def _symmetries(specs: list[BlockSpec]) -> tuple[SymmetryGroup, ...]:
    return tuple(
        replace(
            group,
            name=f"{i}_{group.name}",
            members=_members(i, group.members),
            further=tuple(_members(i, members) for members in group.further),
        )
        for i, spec in enumerate(specs)
        for group in spec.symmetries
    )


def _members(number: int, members: tuple[SymmetryMember, ...]) -> tuple[SymmetryMember, ...]:
    return tuple(replace(member, tensor=f"{number}.{member.tensor}") for member in members)
