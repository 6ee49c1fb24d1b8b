"""Sizes that layers of PyTorch remember, of which no tensor says what they become."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import paramtrans

CASES: dict[str, tuple[nn.Module, dict[str, int]]] = {
    "instance norm": (nn.InstanceNorm2d(16), {"num_features": 8}),
    "batch norm": (nn.BatchNorm2d(16, affine=False), {"num_features": 8}),
    "group norm": (nn.GroupNorm(4, 16, affine=False), {"num_groups": 2, "num_channels": 8}),
    "prelu": (nn.PReLU(16), {"num_parameters": 8}),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("case", CASES)
def test_layers_remember_what_they_have(case: str) -> None:
    torch.manual_seed(0)
    layer, expected = CASES[case]
    network: Any = nn.Sequential(nn.Conv2d(3, 16, 3), layer, nn.ReLU(), nn.Conv2d(16, 2, 3)).eval()
    small: Any = paramtrans.translate(network, "prune", calibrate=torch.randn(8, 3, 8, 8), by="units", ratio=0.5)
    assert small[0].out_channels == 8
    assert {name: getattr(small[1], name) for name in expected} == expected
