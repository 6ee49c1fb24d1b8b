"""What the outputs of layers are added to, and layers solved for so that the sums are what they were."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, relu

import paramtrans
from paramtrans.networks.forward.lockstep import Forward, Lockstep
from paramtrans.networks.forward.sums import added_to


class Residual(nn.Module):
    """Adds what its layers give, in one of several ways."""

    def __init__(self, way: str = "plain", width: int = 8, hidden: int = 32) -> None:
        super().__init__()
        self.way = way
        self.norm, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        out = self.down(relu(self.up(self.norm(x))))
        if self.way == "in place":
            out += x
            return out
        if self.way == "dropout":
            return x + dropout(out, 0.5, self.training)
        if self.way == "used twice":
            return (out + x) * out
        if self.way == "newer":
            return out + self.norm(x)
        return x + out


class Parallel(nn.Module):
    """Two layers that are added to the same value: the second also makes up for the first."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        y = x.sin()
        first, second = self.first(y), self.second(y)
        return second + first + y


def sums_of(network: nn.Module, *names: str, inputs: Tensor | None = None) -> tuple[list[Any], Any]:
    """What the layers' outputs are added to, as a pass of the network finds it, and the network's output."""
    inputs = torch.randn(2, 8) if inputs is None else inputs
    weights = {id(network.get_submodule(name).weight): name for name in names}
    sums = added_to(lambda: network(inputs), weights)
    with Lockstep([Forward(lambda: network(inputs), weights, sums)]) as passes:
        return [calls[0].added_to for calls in passes.layers()], passes.outputs[0]


@pytest.mark.parametrize("way", ["plain", "in place", "dropout"])
def test_the_other_part_of_a_sum_is_known_when_the_layer_is_reached(way: str) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(8, 8), Residual(way)).eval()
    inputs = torch.randn(2, 8)
    [other], output = sums_of(network, "1.down", inputs=inputs)
    expected = network[0](inputs)
    torch.testing.assert_close(other, expected)
    assert not output.equal(other)


@pytest.mark.parametrize("way", ["used twice", "newer"])
def test_nothing_is_made_up_for_where_the_output_has_other_uses_or_the_other_part_comes_later(way: str) -> None:
    network = nn.Sequential(nn.Linear(8, 8), Residual(way)).eval()
    assert sums_of(network, "1.down")[0] == [None]


def test_what_is_added_to_the_networks_own_inputs_has_lost_nothing() -> None:
    assert sums_of(Residual().eval(), "down")[0] == [None]


def test_all_that_is_older_than_the_layer_counts() -> None:
    network, inputs = Parallel().eval(), torch.randn(2, 8)
    first, second = sums_of(network, "first", "second", inputs=inputs)[0]
    assert first is None  # the other layer's output comes later
    torch.testing.assert_close(second, network.first(inputs.sin()) + inputs.sin())


def test_a_convolution_with_its_batch_norm_is_followed_and_a_later_downsample_is_not() -> None:
    from torchvision.models.resnet import BasicBlock

    identity = BasicBlock(8, 8)
    wider = BasicBlock(8, 16, stride=2, downsample=nn.Sequential(nn.Conv2d(8, 16, 1, stride=2), nn.BatchNorm2d(16)))
    network, images = nn.Sequential(nn.Conv2d(1, 8, 3), identity, wider).eval(), torch.randn(2, 1, 8, 8)
    first, second = sums_of(network, "1.conv2", "2.conv2", inputs=images)[0]
    torch.testing.assert_close(first, network[0](images))
    assert second is None


def test_layers_solved_for_make_up_for_what_was_lost_before(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(8, 8), *(Residual(hidden=64) for _ in range(6))).eval()
    inputs, others = torch.randn(512, 8), torch.randn(512, 8)

    def error() -> float:
        small = paramtrans.translate(network, ratio=0.25, calibrate=inputs, by="units")
        with torch.no_grad():
            return float((small(others) - network(others)).square().mean())

    made_up_for = error()
    monkeypatch.setattr(import_module("paramtrans.networks.graph.reconstruct"), "added_to", lambda *_: {})
    assert made_up_for < 0.9 * error()
