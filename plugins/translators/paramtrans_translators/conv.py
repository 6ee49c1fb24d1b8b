"""1-d convolutions along the token sequence, one of the pilot's translators (KT, Fig. 4)."""

from __future__ import annotations

from typing import ClassVar

from einops.layers.torch import Rearrange
from pydantic import Field, PositiveInt, field_validator
from torch import Tensor, nn

from paramtrans.api.options import Trials
from paramtrans.translators.base import TokenOptions, TokenTranslator


class ConvOptions(TokenOptions):
    """Sizes of a convolution translator."""

    layers: PositiveInt = Field(4, le=1000)
    """Convolution layers."""
    width: PositiveInt = 128
    """Channels."""
    kernel: PositiveInt = 5
    """Tokens a convolution sees, odd."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Share of values that a layer drops in training."""

    @field_validator("kernel")
    @classmethod
    def _odd(cls, kernel: int) -> int:
        if kernel % 2 == 0:
            raise ValueError("must be odd, so that padding keeps the number of tokens")
        return kernel


class Conv(TokenTranslator):
    """A token's values are channels, its place the axis; a linear head mixes the tokens into the target's."""

    Options: ClassVar[type[TokenOptions]] = ConvOptions
    options: ConvOptions
    trials: ClassVar[Trials] = (
        {"layers": 1, "width": 8, "kernel": 3, "dropout": 0.5},
        {"layers": 1, "width": 8, "kernel": 3, "start": "none"},
    )

    def build(self, source: tuple[int, int], target: tuple[int, int]) -> nn.Module:
        options = self.options
        return nn.Sequential(
            Rearrange("models tokens width -> models width tokens"),
            nn.Conv1d(source[1], options.width, 1),
            *(ConvLayer(options) for _ in range(options.layers)),
            nn.Linear(source[0], target[0]),
            nn.Conv1d(options.width, target[1], 1),
            Rearrange("models width tokens -> models tokens width"),
        )


class ConvLayer(nn.Module):
    """Normalise, convolve, GELU, mix channels, add: `[models, width, tokens]` → the same shape."""

    def __init__(self, options: ConvOptions) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.GroupNorm(1, options.width),
            nn.Conv1d(options.width, options.width, options.kernel, padding=options.kernel // 2),
            nn.GELU(),
            nn.Conv1d(options.width, options.width, 1),
            nn.Dropout(options.dropout),
        )

    def forward(self, x: Tensor) -> Tensor:
        changed: Tensor = x + self.layers(x)
        return changed
