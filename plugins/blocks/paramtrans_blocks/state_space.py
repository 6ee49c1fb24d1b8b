"""A state-space layer in place of attention: sums over the positions before that fade as the inputs say."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn.functional import conv1d, pad, softplus

from paramtrans.api.adapter import BlockOptions
from paramtrans.api.block_module import Keep
from paramtrans.api.options import Trials
from paramtrans_blocks.attention_target import AttentionTarget, AttentionTargetOptions
from paramtrans_blocks.heads import AttentionModule
from paramtrans_blocks.linear_attention import feature_map
from paramtrans_blocks.positions import by_head, for_heads
from paramtrans_blocks.recurrence import decayed_sums

RATE = 1e-4
"""At which sums fade in a block that begins, as a share a position; a thousand positions away a tenth is lost."""


class StateSpaceOptions(AttentionTargetOptions):
    """Sizes of a state-space layer."""

    kernel: PositiveInt = 4
    """Positions, its own among them, of which the short convolution makes queries, keys and values."""


class StateSpace(AttentionTarget):
    """S_t = exp(−Δ_t r) S_{t−1} + Δ_t φ(k_t) v_t, y_t = φ(q_t) S_t / φ(q_t) Z_t + D v_t.

    The state-space duality of Mamba-2 (Dao and Gu 2024, arXiv 2405.21060, equation 6 and section 6): queries, keys and
    values are its C, B and X behind a short convolution, Δ is a softplus of the features, r a rate for each head.
    Unlike there, sums are normalised by Z, the same of ones, φ is that of `linear_attention`, and nothing gates what
    leaves. In place of attention it starts from its layers with sums that hardly fade, which is linear attention
    (section 4). Without `causal` it runs from both ends.
    """

    Options: ClassVar[type[BlockOptions]] = StateSpaceOptions
    options: StateSpaceOptions
    trials: ClassVar[Trials] = (
        {"heads": 3, "width": 2},
        {"heads": 4, "width": 4, "key_heads": 2, "causal": True, "frequencies": [1.0], "skip": "none"},
        {"heads": 2, "width": 2, "closing": 1e-6, "kernel": 1, "bias": False},
    )

    def module(self) -> AttentionModule:
        return StateSpaceModule(self.options)


class StateSpaceModule(AttentionModule):
    """Positions mixed by sums that fade. A cache holds the features that enter; the sums are made anew of these."""

    def __init__(self, options: StateSpaceOptions) -> None:
        super().__init__(options)
        values, kept = options.heads * options.width, options.kept_heads * options.width
        self.query = nn.Linear(options.channels, values, options.bias)
        self.key, self.value = (nn.Linear(options.channels, kept, options.bias) for _ in range(2))
        self.sides = (options.kernel - 1, 0) if options.causal else (options.kernel // 2, (options.kernel - 1) // 2)
        kernel = torch.zeros(values + 2 * kept, 1, options.kernel)
        kernel[:, :, self.sides[0]] = 1
        self.kernel = nn.Parameter(kernel)
        """A position as it is, at first."""
        identity = torch.eye(options.width).repeat(options.heads, 1, 1)
        self.query_map, self.key_map = nn.Parameter(identity.clone()), nn.Parameter(identity.clone())
        self.step = nn.Linear(options.channels, options.heads)
        with torch.no_grad():
            self.step.weight.mul_(0.1)
        self.log_rate = nn.Parameter(torch.full((options.heads, 1), math.log(RATE)))
        self.direct = nn.Parameter(torch.zeros(options.heads, 1, 1))

    def mix(self, x: Tensor, keep: Keep) -> Tensor:
        features = x.unsqueeze(-3)
        every = keep(features, features[..., :0])[0].squeeze(-3)
        return self._of_all(every)[..., -x.shape[-2] :, :]

    def _of_all(self, x: Tensor) -> Tensor:
        """`[..., positions, channels]` → `[..., heads, positions, width]`."""
        options = self.options
        query, key, value = self._layers(x)
        fast, slow = (
            feature_map(options.rotated(by_head(layer, heads)), options.heads, turn)
            for layer, heads, turn in (
                (query, options.heads, self.query_map),
                (key, options.kept_heads, self.key_map),
            )
        )
        value = for_heads(by_head(value, options.kept_heads), options.heads)
        steps = softplus(self.step(x)).transpose(-2, -1)
        weighed = torch.cat([value, torch.ones_like(value[..., :1])], dim=-1) * steps[..., None]
        sums = self._sums(fast, slow, weighed, -steps * self.log_rate.exp())
        return sums[..., :-1] / sums[..., -1:] + self.direct * value

    def _layers(self, x: Tensor) -> tuple[Tensor, ...]:
        """Queries, keys and values behind the short convolution, `[..., positions, values]` each."""
        layers = [layer(x) for layer in (self.query, self.key, self.value)]
        together = torch.cat(layers, dim=-1)
        rows = pad(together.flatten(0, -3).mT, self.sides)
        mixed = conv1d(rows, self.kernel, groups=len(self.kernel)).mT.view(together.shape)
        return tuple(mixed.split([layer.shape[-1] for layer in layers], dim=-1))

    def _sums(self, query: Tensor, key: Tensor, value: Tensor, decay: Tensor) -> Tensor:
        """Over positions up to each one, or over all of them, as far as they have not faded."""
        before = decayed_sums(query, key, value, decay)
        if self.options.causal:
            return before
        # From the other end a position fades on its way to the one that reads it, so by what that one says.
        fading = torch.cat([torch.zeros_like(decay[..., :1]), decay.flip(-1)[..., :-1]], dim=-1)
        behind = decayed_sums(query.flip(-2), key.flip(-2), value.flip(-2), fading)
        return before + behind.flip(-2) - (query * key).sum(-1, keepdim=True) * value
