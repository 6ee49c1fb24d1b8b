"""A block of your own: depthwise-separable convolutions as a target, in one file.

A block adapter is its options, its module and, as data, what may change places in its parameters. Everything else, from
zoo to report, works with it as with the blocks that come with paramtrans.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from paramtrans import BaseOptions, BlockAdapter, BlockOptions, Component, SymmetryGroup, SymmetryMember, hookimpl


class SeparableOptions(BlockOptions):
    """`channels`, which every block has, and what is this block's own. Unknown options are refused for you."""

    hidden: PositiveInt
    """Channels between the two halves."""


class Separable(BlockAdapter):
    """Depthwise 3×3, pointwise to `hidden`, ReLU, pointwise back, + input, ReLU."""

    Options: ClassVar[type[BaseOptions]] = SeparableOptions
    options: SeparableOptions

    def module(self) -> nn.Module:
        return SeparableModule(self.options.channels, self.options.hidden)

    def symmetries(self) -> tuple[SymmetryGroup, ...]:
        # Hidden channels may change places: rows of `expand` and its bias, columns of `project`. As a ReLU stands
        # between them, they may also be scaled by a > 0 on the way in (+1), if they are by 1/a on the way out (-1).
        hidden = (
            SymmetryMember("expand.weight", axis=0, scale=1),
            SymmetryMember("expand.bias", axis=0, scale=1),
            SymmetryMember("project.weight", axis=1, scale=-1),
        )
        return (SymmetryGroup("hidden", self.options.hidden, hidden, rescale=True),)

    def stream(self) -> tuple[SymmetryMember, ...]:
        # The axes that run over the block's own channels, in and out.
        into = (SymmetryMember("depthwise.weight", axis=0), SymmetryMember("expand.weight", axis=1))
        return (*into, SymmetryMember("project.weight", axis=0))


class SeparableModule(nn.Module):
    """A plain module, `[batch, channels, h, w]` → the same shape. paramtrans runs many of them at once for you."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.expand = nn.Conv2d(channels, hidden, 1)
        self.project = nn.Conv2d(hidden, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.project(torch.relu(self.expand(self.depthwise(x)))) + x)


@hookimpl
def paramtrans_block_adapters() -> list[Component]:
    """What configs may name from now on: `[target] name = "separable"`."""
    return [Component("separable", "depthwise-separable convolutions", f"{__name__}:Separable")]
