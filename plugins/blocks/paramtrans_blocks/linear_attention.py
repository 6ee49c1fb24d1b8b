"""Attention without a softmax over all positions: its cost grows with their number, not with its square."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import NonNegativeInt
from torch import Tensor, nn

from paramtrans.api.adapter import BlockOptions
from paramtrans.api.options import Trials
from paramtrans_blocks.attention_target import AttentionTarget, AttentionTargetModule, AttentionTargetOptions, by_head


class LinearAttentionOptions(AttentionTargetOptions):
    """Sizes of linear attention."""

    window: NonNegativeInt = 0
    """Positions to each side that are looked at by a softmax, beside the linear form for all further away."""


class LinearAttention(AttentionTarget):
    """Σ φ(q)·φ(k) v / Σ φ(q)·φ(k) with a learned φ (Hedgehog: Zhang et al. 2024, arXiv 2402.04347, equation 6).

    φ(x) is a softmax of W x and one of −W x, one behind the other; each head has a W for queries and another for keys.
    With `window`, near positions count by exp(q·k / √width) instead, and both kinds are normalised together
    (LoLCATs: Zhang et al. 2024, arXiv 2410.10254, equation 6). In place of attention it starts from its layers, and W
    from the identity.
    """

    Options: ClassVar[type[BlockOptions]] = LinearAttentionOptions
    options: LinearAttentionOptions
    trials: ClassVar[Trials] = (
        {"heads": 3, "width": 2},
        {"heads": 2, "width": 3, "bias": False, "skip": "none"},
        {"heads": 2, "width": 2, "closing": 1e-6},
    )

    def module(self) -> AttentionTargetModule:
        return LinearAttentionModule(self.options)


class LinearAttentionModule(AttentionTargetModule):
    """Positions mixed by products of features."""

    def __init__(self, options: LinearAttentionOptions) -> None:
        super().__init__(options)
        self.window = options.window
        values = options.heads * options.width
        self.query, self.key, self.value = (nn.Linear(options.channels, values, options.bias) for _ in range(3))
        identity = torch.eye(options.width).repeat(options.heads, 1, 1)
        self.query_map, self.key_map = nn.Parameter(identity.clone()), nn.Parameter(identity.clone())
        self.near = nn.Parameter(torch.zeros(options.heads, 1, 1)) if options.window else None

    def mix(self, x: Tensor) -> Tensor:
        query, key, value = (by_head(layer(x), self.shape[0]) for layer in (self.query, self.key, self.value))
        fast, slow = _features(query @ self.query_map), _features(key @ self.key_map)
        if self.near is None:
            mixed = fast @ (slow.mT @ value)
            return mixed / (fast @ slow.sum(-2, keepdim=True).mT)
        return self._with_window(query, key, value, fast @ slow.mT)

    def _with_window(self, query: Tensor, key: Tensor, value: Tensor, far: Tensor) -> Tensor:
        """`far` are weights of all positions, `[..., heads, positions, positions]`; near ones get others."""
        assert self.near is not None
        positions = torch.arange(query.shape[-2], device=query.device)
        inside = (positions[:, None] - positions).abs() <= self.window
        scores = query @ key.mT / query.shape[-1] ** 0.5
        largest = scores.masked_fill(~inside, -torch.inf).amax(-1, keepdim=True)
        near = torch.exp(self.near + (scores - largest).masked_fill(~inside, -torch.inf))
        weights = torch.where(inside, near, far)
        return weights @ value / weights.sum(-1, keepdim=True)


def _features(values: Tensor) -> Tensor:
    """φ: `[..., width]` → `[..., 2 × width]`, all positive."""
    return torch.cat([values.softmax(-1), (-values).softmax(-1)], dim=-1)
