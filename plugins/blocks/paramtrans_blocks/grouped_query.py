"""Attention in which several query heads share keys and values."""

from __future__ import annotations

from typing import ClassVar, Self

import torch
from pydantic import PositiveInt, model_validator
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from paramtrans.api.adapter import BlockOptions
from paramtrans.api.options import Trials
from paramtrans.api.stacking import Params
from paramtrans_blocks.attention_target import AttentionTarget, AttentionTargetModule, AttentionTargetOptions, by_head
from paramtrans_blocks.heads import Heads


class GroupedQueryOptions(AttentionTargetOptions):
    """Sizes of grouped-query attention."""

    key_heads: PositiveInt | None = None
    """Heads of keys and values; half as many as there are query heads by default, where that divides them."""

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if self.key_heads is not None and self.heads % self.key_heads:
            raise ValueError(f"key_heads: {self.heads} query heads cannot share {self.key_heads} evenly")
        return self


class GroupedQuery(AttentionTarget):
    """Multi-head attention with fewer heads of keys and values (Ainslie et al. 2023, arXiv 2305.13245).

    In place of multi-head attention it starts from the mean of the keys and values that are to be shared (section 2.1).
    """

    Options: ClassVar[type[BlockOptions]] = GroupedQueryOptions
    options: GroupedQueryOptions
    trials: ClassVar[Trials] = (
        {"heads": 4, "width": 2},
        {"heads": 3, "width": 2, "key_heads": 1, "bias": False, "skip": "none"},
        {"heads": 2, "width": 2, "closing": 1e-6},
    )

    @property
    def key_heads(self) -> int:
        """Heads of keys and values."""
        heads = self.options.heads
        return self.options.key_heads or (heads // 2 if heads % 2 == 0 else 1)

    def module(self) -> AttentionTargetModule:
        return GroupedQueryModule(self.options, self.key_heads)

    def from_heads(self, params: Params, heads: Heads) -> Params:
        def shared(tensor: Tensor) -> Tensor:
            shape = (tensor.shape[0], self.key_heads, -1, self.options.width, *tensor.shape[2:])
            return tensor.reshape(shape).mean(2).flatten(1, 2)

        names = [f"{layer}.{kind}" for layer in ("key", "value") for kind in ("weight", "bias")]
        return {name: shared(params[name]) for name in names if name in params}


class GroupedQueryModule(AttentionTargetModule):
    """softmax(q·k / √width) over all positions, each head of keys and values for several of queries."""

    def __init__(self, options: GroupedQueryOptions, key_heads: int) -> None:
        super().__init__(options)
        self.key_heads = key_heads
        self.query = nn.Linear(options.channels, options.heads * options.width, options.bias)
        self.key, self.value = (nn.Linear(options.channels, key_heads * options.width, options.bias) for _ in range(2))

    def mix(self, x: Tensor) -> Tensor:
        query = by_head(self.query(x), self.shape[0])
        times = self.shape[0] // self.key_heads
        key, value = (
            torch.repeat_interleave(by_head(layer(x), self.key_heads), times, dim=-3)
            for layer in (self.key, self.value)
        )
        return scaled_dot_product_attention(query, key, value)
