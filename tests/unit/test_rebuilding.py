"""Files of translated networks go into the network that they were made of, and into no other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import paramtrans
from paramtrans.errors import StoreError


class Attention(nn.Module):
    """Heads whose number only the code says."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads, self.width = heads, 12 // heads
        self.qkv, self.out = nn.Linear(6, 36), nn.Linear(12, 6)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, self.width)).permute(2, 0, 3, 1, 4).unbind(0)
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def made(heads: int = 4, hidden: int = 12, layers: int = 1) -> nn.Module:
    torch.manual_seed(0)
    blocks = [nn.Sequential(nn.Linear(6, hidden), nn.ReLU(), nn.Linear(hidden, 6)) for _ in range(layers)]
    return nn.Sequential(Attention(heads), *blocks).eval()


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"hidden": 24}, r"1\.0\.weight is \[12, 6\], and here it is \[24, 6\]"),
        ({"heads": 2}, r"0\.heads was 4, and here it is 2"),
        ({"layers": 2}, r"2\.0\.weight is not there, and here it is \[12, 6\]"),
    ],
)
def test_a_file_is_refused_by_another_network_than_it_was_made_of(
    wrong: dict[str, Any], said: str, again: bool, tmp_path: Path
) -> None:
    """A wider one could be cut to the same shapes; one of fewer heads would compute something else."""
    inputs, path = torch.randn(40, 5, 6), tmp_path / "small.safetensors"
    small = paramtrans.translate(made(), ratio=0.5, calibrate=inputs)
    if again:  # what is known of the untranslated network outlasts a file, and further translations
        paramtrans.save_translated(small, path)
        small = paramtrans.translate(paramtrans.load_translated(path, made()), "prune", blocks="1", calibrate=inputs)
    paramtrans.save_translated(small, path)
    torch.testing.assert_close(paramtrans.load_translated(path, made())(inputs), small(inputs))
    with pytest.raises(StoreError, match=f"{said}.*; give the untranslated network"):
        paramtrans.load_translated(path, made(**wrong))


def test_a_file_of_fewer_blocks_is_refused_by_a_network_of_more(tmp_path: Path) -> None:
    inputs, path = torch.randn(40, 5, 6), tmp_path / "small.safetensors"
    small = paramtrans.translate(made(layers=4), depth=0.5, ratio=0.5, calibrate=inputs)
    paramtrans.save_translated(small, path)
    torch.testing.assert_close(paramtrans.load_translated(path, made(layers=4))(inputs), small(inputs))
    with pytest.raises(StoreError, match=r"5\.0\.weight is not there"):
        paramtrans.load_translated(path, made(layers=5))
