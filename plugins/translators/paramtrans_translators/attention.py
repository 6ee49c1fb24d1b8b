"""A transformer encoder over parameter tokens, one of the pilot's translators (KT, Fig. 4)."""

from __future__ import annotations

from typing import ClassVar, Self

import torch
from einops.layers.torch import Rearrange
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from paramtrans.api.options import Trials
from paramtrans.translators.base import TokenOptions, TokenTranslator


class AttentionOptions(TokenOptions):
    """Sizes of an attention translator."""

    layers: PositiveInt = Field(4, le=1000)
    """Transformer layers."""
    width: PositiveInt = 128
    """Values of a token inside the translator."""
    heads: PositiveInt = 4
    """Attention heads."""
    feedforward: PositiveInt = 256
    """Hidden units of each layer's MLP."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Share of values that a layer drops in training."""

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if self.width % self.heads:
            raise ValueError("width must be a multiple of heads")
        return self


class Attention(TokenTranslator):
    """Tokens with learned positions through pre-norm transformer layers; a linear head mixes them into the target's."""

    Options: ClassVar[type[TokenOptions]] = AttentionOptions
    options: AttentionOptions
    trials: ClassVar[Trials] = (
        {"layers": 1, "width": 8, "heads": 2, "feedforward": 8, "dropout": 0.5},
        {"layers": 1, "width": 8, "heads": 2, "feedforward": 8, "start": "none"},
    )

    def build(self, source: tuple[int, int], target: tuple[int, int]) -> nn.Module:
        options = self.options
        layer = nn.TransformerEncoderLayer(
            options.width,
            options.heads,
            options.feedforward,
            options.dropout,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        return nn.Sequential(
            nn.Linear(source[1], options.width),
            Positions(source[0], options.width),
            nn.TransformerEncoder(layer, options.layers, nn.LayerNorm(options.width), enable_nested_tensor=False),
            Rearrange("models tokens width -> models width tokens"),
            nn.Linear(source[0], target[0]),
            Rearrange("models width tokens -> models tokens width"),
            nn.Linear(options.width, target[1]),
        )


class Positions(nn.Module):
    """Adds a learned vector for each token's position: `[models, tokens, width]` → the same shape."""

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(0.02 * torch.randn(tokens, width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.weight
