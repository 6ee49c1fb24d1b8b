"""Attention without a softmax over all positions: its cost grows with their number, not with its square."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import NonNegativeInt
from torch import Tensor, nn

from paramtrans.api.adapter import BlockOptions
from paramtrans.api.block_module import Keep
from paramtrans.api.options import Trials
from paramtrans_blocks.attention_target import AttentionTarget, AttentionTargetOptions
from paramtrans_blocks.heads import AttentionModule
from paramtrans_blocks.positions import by_head, for_heads, reachable
from paramtrans_blocks.recurrence import decayed_sums


class LinearAttentionOptions(AttentionTargetOptions):
    """Sizes of linear attention."""

    window: NonNegativeInt = 0
    """Positions to each side that are looked at by a softmax, beside the linear form for all further away; with one,
    all pairs of positions are weighed."""


class LinearAttention(AttentionTarget):
    """Σ φ(q)·φ(k) v / Σ φ(q)·φ(k) with a learned φ (Hedgehog: Zhang et al. 2024, arXiv 2402.04347, equation 6).

    φ(x) is a softmax of W x and one of −W x, one behind the other; each head has a W for queries and another for keys.
    With `window`, near positions count by exp(q·k / √width) instead, and both kinds are normalised together
    (LoLCATs: Zhang et al. 2024, arXiv 2410.10254, equation 6). In place of attention it starts from its layers, and W
    from the identity. Rotary positions turn queries and keys before φ.
    """

    Options: ClassVar[type[BlockOptions]] = LinearAttentionOptions
    options: LinearAttentionOptions
    trials: ClassVar[Trials] = (
        {"heads": 3, "width": 2},
        {"heads": 2, "width": 3, "bias": False, "skip": "none"},
        {"heads": 2, "width": 2, "closing": 1e-6},
        {"heads": 4, "width": 4, "key_heads": 2, "causal": True, "frequencies": [1.0], "skip": "none"},
        {"heads": 2, "width": 2, "causal": True, "skip": "none", "window": 2},
    )

    def module(self) -> AttentionModule:
        return LinearAttentionModule(self.options)


class LinearAttentionModule(AttentionModule):
    """Positions mixed by products of features."""

    def __init__(self, options: LinearAttentionOptions) -> None:
        super().__init__(options)
        self.window = options.window
        values, kept = options.heads * options.width, options.kept_heads * options.width
        self.query = nn.Linear(options.channels, values, options.bias)
        self.key, self.value = (nn.Linear(options.channels, kept, options.bias) for _ in range(2))
        identity = torch.eye(options.width).repeat(options.heads, 1, 1)
        self.query_map, self.key_map = nn.Parameter(identity.clone()), nn.Parameter(identity.clone())
        self.near = nn.Parameter(torch.zeros(options.heads, 1, 1)) if options.window else None

    def mix(self, x: Tensor, keep: Keep) -> Tensor:
        options = self.options
        query = by_head(self.query(x), options.heads)
        key, value = keep(*(by_head(layer(x), options.kept_heads) for layer in (self.key, self.value)))
        query = options.rotated(query, key.shape[-2] - query.shape[-2])
        key, value = (for_heads(values, options.heads) for values in (options.rotated(key), value))
        fast, slow = (
            feature_map(values, options.heads, turn) for values, turn in ((query, self.query_map), (key, self.key_map))
        )
        if self.near is None and not (options.causal and query.shape[-2] < key.shape[-2]):
            return self._linear(fast, slow, value)
        weights = fast @ slow.mT
        if self.near is not None:
            weights = self._near(query, key, weights)
        if options.causal:
            weights = weights.masked_fill(~reachable(query.shape[-2], key.shape[-2], x.device), 0)
        return weights @ value / weights.sum(-1, keepdim=True)

    def _linear(self, fast: Tensor, slow: Tensor, value: Tensor) -> Tensor:
        """Sums over features first, so that no pair of positions is weighed."""
        if self.options.causal:
            sums = decayed_sums(fast, slow, torch.cat([value, torch.ones_like(value[..., :1])], dim=-1))
            return sums[..., :-1] / sums[..., -1:]
        return fast @ (slow.mT @ value) / (fast @ slow.sum(-2, keepdim=True).mT)

    def _near(self, query: Tensor, key: Tensor, far: Tensor) -> Tensor:
        """`far` are weights of all positions, `[..., heads, positions, all positions]`; near ones get others."""
        assert self.near is not None
        positions = torch.arange(key.shape[-2], device=query.device)
        distances = positions[-query.shape[-2] :, None] - positions
        inside = distances.abs() <= self.window
        if self.options.causal:
            inside &= distances >= 0
        scores = query @ key.mT / query.shape[-1] ** 0.5
        largest = scores.masked_fill(~inside, -torch.inf).amax(-1, keepdim=True)
        near = torch.exp(self.near + (scores - largest).masked_fill(~inside, -torch.inf))
        return torch.where(inside, near, far)


def feature_map(values: Tensor, heads: int, turn: Tensor) -> Tensor:
    """φ, all positive, of queries or keys.

    Args:
        values: `[..., heads or fewer, positions, width]`.
        heads: How many; fewer are repeated.
        turn: The matrix W of each head, `[heads, width, width]`.

    Returns:
        `[..., heads, positions, 2 × width]`.
    """
    turned = for_heads(values, heads) @ turn
    return torch.cat([turned.softmax(-1), (-turned).softmax(-1)], dim=-1)
