"""What stays beside blocks, and the one layer that kept the nearest candidates from being any."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import Tensor, nn

import paramtrans
from paramtrans import components
from paramtrans.errors import SpecMismatch
from paramtrans.networks.blocks import remainder
from paramtrans.networks.blocks.finding import find_blocks

REGISTRY = components()


class Squeezed(nn.Module):
    """Squeeze-and-excitation."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pool, self.fc1, self.fc2 = nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, 2, 1), nn.Conv2d(2, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.fc2(torch.relu(self.fc1(self.pool(x)))))


class Joined(nn.Module):
    """Joins two layers in code of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 8), nn.Linear(6, 8)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.a(x), self.b(x)], -1)


class Residual(nn.Module):
    """Around layers."""

    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, x: Tensor) -> Tensor:
        summed: Tensor = x + self.layers(x)
        return summed


def inverted(squeezed: bool) -> nn.Sequential:
    depthwise = [nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8), nn.ReLU()]
    squeezed_layers = [Squeezed(8)] if squeezed else []
    return nn.Sequential(
        nn.Conv2d(4, 8, 1), nn.BatchNorm2d(8), nn.ReLU(), *depthwise, *squeezed_layers, nn.Conv2d(8, 4, 1)
    )


CASES = {
    "Squeezed": (inverted(True), "Squeezed ×1"),
    "GroupNorm": (nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(4, 8), nn.ReLU(), nn.Conv2d(8, 4, 3)), "GroupNorm ×1"),
    "groups": (nn.Sequential(nn.Conv2d(4, 8, 3, groups=2), nn.ReLU(), nn.Conv2d(8, 4, 3)), "Conv2d (groups=2) ×1"),
    "oblong": (nn.Sequential(nn.Conv2d(4, 8, (3, 1)), nn.ReLU(), nn.Conv2d(8, 4, 3)), "Conv2d (kernel (3, 1)) ×1"),
    "another activation": (nn.Sequential(nn.Linear(4, 8), nn.Softplus(), nn.Linear(8, 4)), "Softplus ×1"),
    "code": (nn.Sequential(Joined(), Joined()), "code of Joined ×2"),
    "LSTM": (nn.LSTM(3, 4), "code of LSTM ×1"),
    "nothing near": (nn.Linear(3, 4), ""),
}


@pytest.mark.parametrize(("network", "cause"), CASES.values(), ids=CASES)
def test_the_nearest_candidates_say_what_stopped_them(network: nn.Module, cause: str) -> None:
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    assert remainder.causes(network, find_blocks(network, REGISTRY), REGISTRY) == cause
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    with pytest.raises(SpecMismatch, match="no adapter") as refused:
        paramtrans.translate(network, "prune")
    assert cause in str(refused.value)


def test_how_much_stays_is_said_where_it_is_much(caplog: pytest.LogCaptureFixture) -> None:
    network = nn.Sequential(*(Residual(inverted(squeezed)) for squeezed in (False, True, True))).eval()
    with caplog.at_level(logging.WARNING):
        paramtrans.translate(network, "prune", ratio=0.5)
    assert "1 block; 7" in caplog.text and "% of the parameters stay: Squeezed ×2" in caplog.text
    assert "--by units" in caplog.text
    caplog.clear()
    paramtrans.translate(nn.Sequential(inverted(False)).eval(), "prune", ratio=0.5)
    assert "stay" not in caplog.text


def test_layers_that_stand_alone_are_what_stays(caplog: pytest.LogCaptureFixture) -> None:
    network = nn.ModuleDict({"block": inverted(False), "alone": nn.Conv2d(8, 99, 3)})
    network.forward = lambda x: network["alone"](network["block"](x))  # type: ignore[method-assign]
    paramtrans.translate(network.eval(), "prune", ratio=0.5)
    assert "of the parameters stay: Conv2d ×1, in no block" in caplog.text
