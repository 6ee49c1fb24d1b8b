"""Attention whose keys and values are made of one thin vector for each position."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from paramtrans.api.adapter import BlockAdapter, BlockOptions
from paramtrans.api.options import Trials
from paramtrans.api.specs import SymmetryGroup, SymmetryMember
from paramtrans.api.stacking import Params
from paramtrans_blocks.attention_target import (
    AttentionTarget,
    AttentionTargetModule,
    AttentionTargetOptions,
    by_head,
    low_rank,
)
from paramtrans_blocks.heads import Heads


class LatentAttentionOptions(AttentionTargetOptions):
    """Sizes of latent attention."""

    rank: PositiveInt | None = None
    """Values of a position that keys and values are made of; half of the channels by default."""


class LatentAttention(AttentionTarget):
    """Multi-head attention with low-rank keys and values, all that a cache has to keep (DeepSeek-V2, arXiv 2405.04434).

    In place of multi-head attention it starts from the singular vectors of its keys and values together, both scaled
    alike first (TransMLA, arXiv 2502.07864, section 4).
    """

    Options: ClassVar[type[BlockOptions]] = LatentAttentionOptions
    options: LatentAttentionOptions
    trials: ClassVar[Trials] = (
        {"heads": 3, "width": 2},
        {"heads": 2, "width": 3, "rank": 2, "bias": False, "skip": "none"},
        {"heads": 2, "width": 2, "closing": 1e-6},
    )

    @property
    def rank(self) -> int:
        """Values of a position that keys and values are made of."""
        return self.options.rank or max(1, self.options.channels // 2)

    def module(self) -> AttentionTargetModule:
        return LatentAttentionModule(self.options, self.rank)

    def symmetries(self) -> tuple[SymmetryGroup, ...]:
        """Whole heads."""
        layers = ("query", "key", "value")
        members = [SymmetryMember(f"{layer}.weight", 0) for layer in layers]
        members += [SymmetryMember(f"{layer}.bias", 0) for layer in layers if self.options.bias]
        members.append(SymmetryMember("out.weight", 1))
        return (SymmetryGroup("heads", self.options.heads, tuple(members), width=self.options.width),)

    def with_sizes(self, sizes: Mapping[str, int]) -> BlockAdapter:
        return type(self)(self.options.model_copy(update={"heads": sizes.get("heads", self.options.heads)}))

    def from_heads(self, params: Params, heads: Heads) -> Params:
        key, value = (params[f"{name}.weight"][0] for name in ("key", "value"))
        scale = value.norm() / key.norm()
        up, down = low_rank(torch.cat([scale * key, value]), self.rank)
        key_rows, value_rows = up.split([len(key), len(value)])
        return {"latent.weight": down[None], "key.weight": (key_rows / scale)[None], "value.weight": value_rows[None]}


class LatentAttentionModule(AttentionTargetModule):
    """softmax(q·k / √width) over all positions, k and v linear in a thin vector."""

    def __init__(self, options: LatentAttentionOptions, rank: int) -> None:
        super().__init__(options)
        values = options.heads * options.width
        self.query = nn.Linear(options.channels, values, options.bias)
        self.latent = nn.Linear(options.channels, rank, bias=False)
        self.key, self.value = (nn.Linear(rank, values, options.bias) for _ in range(2))

    def mix(self, x: Tensor) -> Tensor:
        latent = self.latent(x)
        values = (self.query(x), self.key(latent), self.value(latent))
        query, key, value = (by_head(layer, self.shape[0]) for layer in values)
        return scaled_dot_product_attention(query, key, value)
