"""The paper's translator: an MLP-Mixer over parameter tokens (KT, section 3 and Table 2)."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from einops.layers.torch import Rearrange
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from paramtrans.api.options import Trials
from paramtrans.translators.base import TokenOptions, TokenTranslator
from paramtrans.utils.precision import widened

SIZES = {
    "small": {"layers": 8, "width": 128, "token_width": 256, "channel_width": 512},
    "base": {"layers": 16, "width": 128, "token_width": 256, "channel_width": 512},
    "large": {"layers": 24, "width": 128, "token_width": 256, "channel_width": 512},
    "wide": {"layers": 2, "width": 512, "token_width": 256, "channel_width": 2048},
}
"""Table 2. For the paper's blocks these have 1,385,965, 2,741,293, 4,096,621 and 4,316,605 parameters."""


class MixerOptions(TokenOptions):
    """Sizes of a Mixer: one of Table 2's, or each number by itself."""

    size: Literal["small", "base", "large", "wide"] | None = None
    """A row of Table 2; sets the four numbers below."""
    layers: PositiveInt = Field(8, le=1000)
    """Mixer layers."""
    width: PositiveInt = 128
    """Values of a token inside the Mixer."""
    token_width: PositiveInt = 256
    """Hidden units of the MLP across tokens (the paper's D_S), and of the head."""
    channel_width: PositiveInt = 512
    """Hidden units of the MLP across a token's values (the paper's D_C)."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Share of values that a layer drops in training."""

    @model_validator(mode="before")
    @classmethod
    def _table2(cls, value: Any) -> Any:
        size = value.get("size") if isinstance(value, dict) else None
        if not isinstance(size, str) or size not in SIZES:
            return value
        numbers = SIZES[size]
        # A resolved config carries the size and its numbers; they may stand side by side as long as they agree.
        if conflicting := [name for name in numbers if value.get(name, numbers[name]) != numbers[name]]:
            raise ValueError(f'size "{value["size"]}" sets {", ".join(conflicting)}; leave out size to choose freely')
        return {**value, **numbers}


class Mixer(TokenTranslator):
    """Mixer over parameter tokens, with a head that mixes the source's tokens into the target's.

    Source: Knowledge Translation (arXiv 2401.05772), Table 2; its layers are those of MLP-Mixer.
    """

    Options: ClassVar[type[TokenOptions]] = MixerOptions
    options: MixerOptions
    trials: ClassVar[Trials] = (
        {"layers": 2, "width": 8, "token_width": 8, "channel_width": 8, "dropout": 0.5},
        {"layers": 1, "width": 8, "token_width": 8, "channel_width": 8, "start": "none"},
    )

    def build(self, source: tuple[int, int], target: tuple[int, int]) -> nn.Module:
        options = self.options
        return nn.Sequential(
            nn.Linear(source[1], options.width),
            *(MixerLayer(source[0], options) for _ in range(options.layers)),
            nn.LayerNorm(options.width),
            Rearrange("models tokens width -> models width tokens"),
            nn.Linear(source[0], options.token_width),
            nn.GELU(),
            nn.Linear(options.token_width, target[0]),
            Rearrange("models width tokens -> models tokens width"),
            nn.Linear(options.width, target[1]),
        )


class MixerLayer(nn.Module):
    """Mixes across tokens, then across each token's values: `[models, tokens, width]` → the same shape.

    Source: MLP-Mixer (Tolstikhin et al., 2021, arXiv 2105.01601), Eq. 1.
    """

    def __init__(self, tokens: int, options: MixerOptions) -> None:
        super().__init__()
        self.token_norm = nn.LayerNorm(options.width)
        self.token_mlp = _mlp(tokens, options.token_width, options.dropout)
        self.channel_norm = nn.LayerNorm(options.width)
        self.channel_mlp = _mlp(options.width, options.channel_width, options.dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = widened(x)  # sums of layers stay in single precision where their products are in half
        x = x + self.token_mlp(self.token_norm(x).transpose(1, 2)).transpose(1, 2)
        mixed: Tensor = x + self.channel_mlp(self.channel_norm(x))
        return mixed


def _mlp(width: int, hidden: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(width, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, width), nn.Dropout(dropout)
    )
