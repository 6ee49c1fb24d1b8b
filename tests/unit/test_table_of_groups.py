"""What is said of groups that were made smaller: each tensor in one row."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import paramtrans
from paramtrans.evaluation.costs import parameters


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.heads = 2
        self.query, self.key, self.value, self.out = (nn.Linear(12, 12) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        layers = (self.query, self.key, self.value)
        query, key, value = (layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer in layers)
        return self.out(F.scaled_dot_product_attention(query, key, value, scale=0.3).transpose(1, 2).flatten(2))


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.attention, self.norm = nn.Linear(4, 12), Attention(), nn.LayerNorm(12)
        self.up, self.down, self.head = nn.Linear(12, 20), nn.Linear(20, 12), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        x = x + self.attention(x)
        return self.head(x + self.down(F.relu(self.up(self.norm(x)))))


def chain() -> nn.Module:
    """Each layer writes one group and reads another, one the other way round."""
    layers = (nn.Conv1d(5, 8, 1), nn.ReLU(), nn.Conv1d(8, 6, 1), nn.ReLU(), nn.ConvTranspose1d(6, 10, 1), nn.ReLU())
    return nn.Sequential(*layers, nn.Conv1d(10, 2, 1))


@pytest.mark.parametrize(
    ("network", "shape", "asked", "count"),
    [
        (chain, (40, 5, 4), {"ratio": 0.5}, 3),
        (Transformer, (40, 5, 4), {"ratio": 0.5, "query_key": 0.5}, 3),
        (Transformer, (40, 5, 4), {"ratio": 0.5, "query_key": 0.5, "stream": 0.5}, 4),
    ],
)
def test_rows_add_up_to_what_the_network_lost(
    network: Any, shape: tuple[int, ...], asked: dict[str, float], count: int
) -> None:
    torch.manual_seed(0)
    whole = network().eval()
    small = paramtrans.translate(whole, calibrate=torch.randn(shape), **asked)
    rows = small.paramtrans_blocks
    assert len(rows) == count
    assert sum(row.parameters[0] - row.parameters[1] for row in rows) == parameters(whole) - parameters(small)
