"""What the equivariant translator is made of: values to cells, and attention along both axes of a grid of cells."""

from __future__ import annotations

import math

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

RANKS = 8
"""Sines and cosines that tell a unit's rank."""
PRODUCTS = 8
"""Products whose sum a value between two groups of units is."""


class Embed(nn.Module):
    """Standardises values by what they were over the training hosts, then embeds: `[..., values]` → `[..., width]`.

    Mean and deviation are taken over hosts, units and channels alike, so that equivariance is kept.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, values: int, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(values, width)
        self.register_buffer("mean", torch.zeros(values))
        self.register_buffer("deviation", torch.ones(values))

    def start(self, values: Tensor) -> None:
        flat = values.flatten(0, -2)
        self.mean.copy_(flat.mean(0))
        self.deviation.copy_(flat.std(0, correction=min(1, len(flat) - 1)).clamp_min(1e-8))

    def forward(self, values: Tensor) -> Tensor:
        embedded: Tensor = self.linear((values - self.mean) / self.deviation)
        return embedded


class Ranks(nn.Module):
    """Tells the units of a group apart, and how many they are: count → `[count, width]`, for any count."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(2 * RANKS + 2, width), nn.GELU(), nn.Linear(width, width))

    def forward(self, count: int) -> Tensor:
        first: Tensor = self.mlp[0].weight  # type: ignore[assignment]
        ranks = torch.arange(count, device=first.device, dtype=first.dtype)[:, None]
        angles = ranks * torch.pi * 2.0 ** -torch.arange(RANKS, device=first.device)
        size = torch.full_like(ranks, count)
        embedded: Tensor = self.mlp(torch.cat([angles.sin(), angles.cos(), ranks / size, size.log()], dim=1))
        return embedded


class AxialLayer(nn.Module):
    """Attention among the units of each channel, among the channels of each unit, then an MLP on each cell.

    Axial attention (Ho et al., arXiv 1912.12180) without positions, so that permuting units or channels permutes the
    result alike: equivariant to both, as the layers of Hartford et al. (2018, arXiv 1803.02879) for exchangeable
    matrices, and those of Navon et al. (2023, arXiv 2301.12780) and Zhou et al. (2023, arXiv 2302.14040) for weights of
    networks.

    `[models, units, channels, width]` → the same shape.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.among_units = SelfAttention(width, heads, dropout)
        self.among_channels = SelfAttention(width, heads, dropout)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, 2 * width),
            nn.GELU(),
            nn.Linear(2 * width, width),
            nn.Dropout(dropout),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.among_units(x.transpose(1, 2)).transpose(1, 2)
        x = x + self.among_channels(x)
        changed: Tensor = x + self.mlp(x)
        return changed


class SelfAttention(nn.Module):
    """Pre-norm attention along the last axis but one: `[..., length, width]` → the same shape."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Sequential(nn.Linear(width, width), nn.Dropout(dropout))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = rearrange(
            self.qkv(self.norm(x)),
            "... length (three heads width) -> three ... heads length width",
            three=3,
            heads=self.heads,
        )
        mixed = scaled_dot_product_attention(q, k, v)
        left: Tensor = self.out(rearrange(mixed, "... heads length width -> ... length (heads width)"))
        return left


class Between(nn.Module):
    """Values for each pair of units of two groups, written from their cells and read into them.

    What is written is a sum of products over channels, as a layer between two groups is one where the layers around it
    are its factors; it permutes with the units of either group, and permuting channels changes nothing.

    Args:
        width: Of cells.
        features: Values of a pair.
        first: Whether there is no block to read yet.
    """

    def __init__(self, width: int, features: int, first: bool) -> None:
        super().__init__()
        self.features = features
        self.left = nn.Linear(width, PRODUCTS * features)
        self.right = nn.Linear(width, PRODUCTS)
        self.embed = None if first else nn.Linear(2 * features, width)

    def write(self, left: Tensor, right: Tensor) -> Tensor:
        """Cells of both groups, `[models, units, channels, width]` → `[models, units, other units, features]`."""
        factors: Tensor = self.left(left).unflatten(-1, (PRODUCTS, self.features))
        others: Tensor = self.right(right)
        summed: Tensor = torch.einsum("mucpf,mvcp->muvf", factors, others)
        return summed / math.sqrt(left.shape[2] * PRODUCTS)

    def read(self, values: Tensor, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        """What the values of its pairs tell each cell of either group, beside the cell that is the other's.

        `[models, units, other units, 2 · features]`, and cells as for `write` → as the cells.
        """
        assert self.embed is not None
        embedded: Tensor = self.embed(values)
        return (
            torch.einsum("muvw,mvcw->mucw", embedded, right) / right.shape[1],
            torch.einsum("muvw,mucw->mvcw", embedded, left) / left.shape[1],
        )
