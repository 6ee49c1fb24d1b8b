"""An MLP from all source parameters to all target parameters, one of the pilot's translators (KT, Fig. 4)."""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar

from pydantic import Field, NonNegativeInt, PositiveInt
from torch import nn

from paramtrans.api.options import Trials
from paramtrans.translators.base import TokenOptions, TokenTranslator


class MLPOptions(TokenOptions):
    """Sizes of an MLP translator."""

    layers: NonNegativeInt = Field(2, le=1000)
    """Hidden layers."""
    width: PositiveInt = 512
    """Units of each."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Share of values that a layer drops in training."""


class MLP(TokenTranslator):
    """Flattens the tokens, passes them through GELU layers, and cuts the result into tokens again."""

    Options: ClassVar[type[TokenOptions]] = MLPOptions
    options: MLPOptions
    trials: ClassVar[Trials] = ({"layers": 1, "width": 8, "dropout": 0.5}, {"layers": 1, "width": 8, "start": "none"})

    def build(self, source: tuple[int, int], target: tuple[int, int]) -> nn.Module:
        options = self.options
        widths = [source[0] * source[1], *[options.width] * options.layers]
        hidden: list[nn.Module] = []
        for entering, leaving in pairwise(widths):
            hidden += [nn.Linear(entering, leaving), nn.GELU(), nn.Dropout(options.dropout)]
        return nn.Sequential(
            nn.Flatten(1), *hidden, nn.Linear(widths[-1], target[0] * target[1]), nn.Unflatten(1, target)
        )
