"""A small language model."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from paramtrans.api.options import BaseOptions
from paramtrans.api.specs import FeatureSpec
from paramtrans.api.task import Split
from paramtrans_synthetic.drawn import DrawnTask

WORDS, LENGTH = 6, 16


class GrammarOptions(BaseOptions):
    """Sizes of the host, and how hard the task is."""

    channels: PositiveInt = 16
    """Width of the residual stream."""
    heads: PositiveInt = 2
    """Heads of the attention; they share the width."""
    sharpness: PositiveFloat = 2.0
    """How certain the next token is, given the two before it: by how much their preferences are multiplied."""


class Grammar(DrawnTask):
    """The next of six tokens in sequences in which each depends on the two before it (a Markov chain of order two).

    Former: embedding with positions, one layer of causal attention; the block is the feed-forward one behind it.
    Latter: LayerNorm, linear.
    """

    Options: ClassVar[type[BaseOptions]] = GrammarOptions
    options: GrammarOptions
    metric = "perplexity"

    def __init__(self, options: GrammarOptions) -> None:
        super().__init__(options)
        self.slot = FeatureSpec(LENGTH, options.channels, channel_axis=1)

    def former(self) -> nn.Module:
        return nn.Sequential(
            Embedded(self.options.channels), CausalAttention(self.options.channels, self.options.heads)
        )

    def latter(self) -> nn.Module:
        return nn.Sequential(nn.LayerNorm(self.options.channels), nn.Linear(self.options.channels, WORDS))

    def drawn(self, count: int, generator: torch.Generator) -> Split:
        preferences = torch.randn(WORDS, WORDS, WORDS, generator=torch.Generator().manual_seed(5))
        chances = torch.softmax(self.options.sharpness * preferences, dim=2)
        words = torch.randint(WORDS, (count, 2), generator=generator)
        for _ in range(LENGTH - 1):
            before = words[:, -2], words[:, -1]
            words = torch.cat([words, torch.multinomial(chances[before], 1, generator=generator)], dim=1)
        return Split(words[:, :-1], words[:, 1:])

    def loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        losses = cross_entropy(outputs.flatten(0, -2), labels.flatten(), reduction="none")
        return losses.view(len(labels), -1).mean(1)


class Embedded(nn.Module):
    """Tokens `[batch, length]` → features `[batch, length, channels]`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(WORDS, channels)
        self.positions = nn.Parameter(0.02 * torch.randn(LENGTH, channels))

    def forward(self, x: Tensor) -> Tensor:
        embedded: Tensor = self.tokens(x) + self.positions
        return embedded


class CausalAttention(nn.Module):
    """x + attention of its LayerNorm to what came before: `[batch, length, channels]` → the same shape."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads, self.norm = heads, nn.LayerNorm(channels)
        self.reads, self.out = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.reads(self.norm(x)).unflatten(-1, (3, self.heads, -1)).movedim(-3, 0)
        query, key, value = (part.movedim(-2, -3) for part in parts)
        # Not PyTorch's fused attention, which vmap takes apart into a loop over the models.
        logits = query @ key.mT * query.shape[-1] ** -0.5
        later = torch.ones(logits.shape[-2:], dtype=torch.bool, device=x.device).triu(1)
        attended = logits.masked_fill(later, -torch.inf).softmax(-1) @ value
        summed: Tensor = x + self.out(attended.movedim(-3, -2).flatten(-2))
        return summed
