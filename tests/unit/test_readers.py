"""What layers that read units are solved for by, and what is left as it is."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import relu

import paramtrans
from paramtrans.networks.graph.groups import analyse


class Shared(nn.Module):
    """Two layers with a BatchNorm or a bias that is the same for both."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.first, self.second = (nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 6)) for _ in range(2))
        self.norm = nn.BatchNorm1d(6)
        if way == "bias":
            self.first[2].bias = self.second[2].bias

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        first, second = self.first(x), self.second(x)
        return (self.norm(first), self.norm(second)) if self.way == "norm" else (first.sin(), second.sin())


@pytest.mark.parametrize("way", ["norm", "bias"])
def test_what_two_layers_share_is_not_written_for_the_second(way: str) -> None:
    torch.manual_seed(0)
    network = Shared(way)
    if way == "norm":
        network.first[2] = nn.Linear(16, 6, bias=False)
        network.second[2] = nn.Linear(16, 6, bias=False)
    inputs = torch.randn(128, 4)
    small = paramtrans.translate(network.eval(), calibrate=inputs, by="units", ratio=0.5)
    assert small.first[2].in_features == 8  # type: ignore[union-attr, index]
    assert torch.equal(small.norm.running_mean, network.norm.running_mean)  # type: ignore[union-attr, arg-type]
    assert way == "norm" or torch.equal(small.first[2].bias, network.first[2].bias)  # type: ignore[union-attr, index]
    layers = [layer for group in analyse(network, ((inputs[:2],), {})).groups for layer in group.readers]
    assert all(layer.mean is None if way == "norm" else layer.bias is None for layer in layers) and len(layers) == 2


class Batched(nn.Module):
    """Products with several matrices at once, which are no layers."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Parameter(torch.randn(4, 6, 8)), nn.Parameter(torch.randn(4, 8, 5))

    def forward(self, x: Tensor) -> Tensor:
        return torch.matmul(relu(torch.matmul(x[:, None, None, :], self.up)), self.down)


@pytest.mark.parametrize("translator", ["prune", "select", "refit"])
def test_products_with_a_batch_of_matrices_are_no_layers(translator: str) -> None:
    network, inputs = Batched().eval(), torch.randn(16, 6)
    assert not any(group.readers for group in analyse(network, ((inputs[:2],), {})).groups)
    small = paramtrans.translate(network, translator, calibrate=inputs, by="units", ratio=0.5)
    assert small(inputs).shape == network(inputs).shape and small.up.shape[2] < 8  # type: ignore[union-attr]
