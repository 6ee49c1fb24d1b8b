"""Attention whose keys and values are made of one thin vector for each position."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn.functional import pad

from paramtrans.api.adapter import BlockAdapter, BlockOptions, Part
from paramtrans.api.block_module import Keep
from paramtrans.api.options import Trials
from paramtrans.api.specs import SymmetryGroup, SymmetryMember
from paramtrans.api.stacking import Params
from paramtrans_blocks.attention_target import (
    AttentionTarget,
    AttentionTargetOptions,
    low_rank,
    square_root,
)
from paramtrans_blocks.heads import AttentionModule, Heads
from paramtrans_blocks.positions import by_head, softmax_attention


class LatentAttentionOptions(AttentionTargetOptions):
    """Sizes of latent attention."""

    rank: PositiveInt | None = None
    """Values of a position that keys and values are made of; a quarter of theirs in place of attention, else half of
    the channels."""


class LatentAttention(AttentionTarget):
    """Multi-head attention with low-rank keys and values, all that a cache has to keep (DeepSeek-V2, arXiv 2405.04434).

    In place of attention it starts from the singular vectors of its keys and values together, both scaled alike first
    and weighed by what enters (TransMLA, arXiv 2502.07864, section 4). All rotary pairs are kept: keys turn with
    positions after they are made of the thin vector, as its full form has it, so that they are made anew for all
    positions as often as they are read; DeepSeek-V2 turns a few values apart instead.
    """

    Options: ClassVar[type[BlockOptions]] = LatentAttentionOptions
    options: LatentAttentionOptions
    trials: ClassVar[Trials] = (
        {"heads": 3, "width": 2},
        {"heads": 2, "width": 3, "rank": 2, "bias": False, "skip": "none"},
        {"heads": 2, "width": 2, "closing": 1e-6},
        {"heads": 4, "width": 4, "key_heads": 2, "causal": True, "frequencies": [1.0], "skip": "none"},
    )

    @property
    def rank(self) -> int:
        """Values of a position that keys and values are made of."""
        return self.options.rank or max(1, self.options.channels // 2)

    def module(self) -> AttentionModule:
        return LatentAttentionModule(self.options, self.rank)

    def symmetries(self) -> tuple[SymmetryGroup, ...]:
        """Values of the thin vector; whole heads stay, as the attention has them."""
        members = (
            SymmetryMember("latent.weight", 0, 1),
            SymmetryMember("key.weight", 1, -1),
            SymmetryMember("value.weight", 1, -1),
        )
        return (SymmetryGroup("rank", self.rank, members, rescale=True),)

    def with_sizes(self, sizes: Mapping[str, int]) -> BlockAdapter:
        return type(self)(self.options.model_copy(update={"rank": sizes.get("rank", self.rank)}))

    @classmethod
    def options_for(cls, part: Part) -> Mapping[str, Any]:
        options = dict(super().options_for(part))
        if "heads" in options:
            options["rank"] = max(1, (options["key_heads"] or options["heads"]) * options["width"] // 2)
        return options

    def from_heads(self, params: Params, heads: Heads, entering: Tensor) -> Params:
        key, value = (params[f"{name}.weight"][0].double() for name in ("key", "value"))
        scale = value.norm() / key.norm().clamp_min(1e-12)
        both = torch.cat([scale * key, value])
        rank = min(self.rank, *both.shape)
        up, down = low_rank(both, rank, square_root(entering))
        up, down = pad(up, (0, self.rank - rank)), pad(down, (0, 0, 0, self.rank - rank))
        key_rows, value_rows = up.split([len(key), len(value)])
        return {"latent.weight": down[None], "key.weight": (key_rows / scale)[None], "value.weight": value_rows[None]}


class LatentAttentionModule(AttentionModule):
    """softmax(q·k / √width), k and v linear in a thin vector."""

    def __init__(self, options: LatentAttentionOptions, rank: int) -> None:
        super().__init__(options)
        kept = options.kept_heads * options.width
        self.query = nn.Linear(options.channels, options.heads * options.width, options.bias)
        self.latent = nn.Linear(options.channels, rank, bias=False)
        self.key, self.value = (nn.Linear(rank, kept, options.bias) for _ in range(2))

    def mix(self, x: Tensor, keep: Keep) -> Tensor:
        options, thin = self.options, by_head(self.latent(x), 1)
        latent = keep(thin, thin[..., :0])[0].squeeze(-3)
        query = by_head(self.query(x), options.heads)
        key, value = (by_head(layer(latent), options.kept_heads) for layer in (self.key, self.value))
        query = options.rotated(query, key.shape[-2] - query.shape[-2])
        return softmax_attention(query, options.rotated(key), value, options.causal)
