"""What layers that read units are solved for by, and what is left as it is."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, linear, relu

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
        output: Tensor = torch.matmul(relu(torch.matmul(x[:, None, None, :], self.up)), self.down).sum(1)
        return output


@pytest.mark.parametrize("translator", ["prune", "select", "refit"])
def test_products_with_a_batch_of_matrices_are_no_layers(translator: str) -> None:
    network, inputs = Batched().eval(), torch.randn(16, 6)
    assert not any(group.readers for group in analyse(network, ((inputs[:2],), {})).groups)
    small = paramtrans.translate(network, translator, calibrate=inputs, by="units", ratio=0.5)
    assert small(inputs).shape == network(inputs).shape and small.up.shape == (2, 6, 4)  # type: ignore[union-attr]


class ByName(nn.Module):
    """Layers that are given their arguments by name."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 6, 3, padding=1)
        self.third, self.last = nn.Linear(6, 4), nn.Parameter(torch.randn(4, 2))

    def forward(self, x: Tensor) -> Tensor:
        second = {"input": relu(self.first(x)), "bias": self.second.bias, "padding": 1}
        pooled = relu(conv2d(weight=self.second.weight, **second)).mean((2, 3))
        third = linear(pooled, weight=self.third.weight, bias=self.third.bias)
        return torch.matmul(input=relu(third), other=self.last)


def test_layers_with_arguments_by_name_are_solved_for() -> None:
    torch.manual_seed(0)
    network, inputs = ByName().eval(), torch.randn(64, 1, 6, 6)
    small = paramtrans.translate(network, calibrate=inputs, by="units", ratio=0.5)
    pruned = paramtrans.translate(network, "prune", calibrate=inputs, by="units", ratio=0.5)
    for name in ("second.weight", "third.weight", "last"):
        assert not small.get_parameter(name).equal(pruned.get_parameter(name))


def test_units_that_no_layer_is_solved_for_are_named(caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(0)
    up = nn.ConvTranspose2d(8, 6, 2, stride=2)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), up, nn.ReLU(), nn.Conv2d(6, 2, 1)).eval()
    images = torch.randn(64, 3, 8, 8)
    paramtrans.translate(network, calibrate=images)
    assert (
        '"0": no layer that reads these units can be solved for' in caplog.text and '"2": no layer' not in caplog.text
    )
    caplog.clear()
    paramtrans.translate(network, "prune", calibrate=images)
    assert "solved for" not in caplog.text
