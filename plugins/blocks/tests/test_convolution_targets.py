"""Convolutions and normalisations given to other families: exact where the part is of that form."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

import paramtrans


def made(network: nn.Module, target: str, inputs: Tensor, started: str = "closed form") -> nn.Module:
    small = paramtrans.translate(network.eval(), to={"0": target}, options={"steps": 0}, calibrate=inputs)
    [block] = small.paramtrans_blocks
    assert block.started == started
    return small


def trained(network: nn.Module) -> nn.Module:
    """Statistics as after training."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(), module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5), nn.init.normal_(module.bias)
    return network


class RepVGG(nn.Module):
    """Three branches that are added, and a ReLU."""

    def __init__(self, channels: int, out: int, stride: int, rectified: bool = True) -> None:
        super().__init__()
        self.rectified = rectified
        self.wide = nn.Sequential(nn.Conv2d(channels, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out))
        self.narrow = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))
        self.same = nn.BatchNorm2d(channels) if stride == 1 and channels == out else None

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.wide(x) + self.narrow(x)
        if self.same is not None:
            features = features + self.same(x)
        return nn.functional.relu(features) if self.rectified else features


BRANCHES: dict[str, Callable[[], nn.Module]] = {
    "three branches": lambda: RepVGG(4, 4, 1),
    "a stride": lambda: RepVGG(4, 6, 2),
    "no activation": lambda: RepVGG(4, 3, 2, rectified=False),
    "two 1×1, one after the other": lambda: nn.Sequential(nn.Conv2d(4, 8, 1), nn.Conv2d(8, 5, 1)),
}


@pytest.mark.parametrize("make", BRANCHES.values(), ids=BRANCHES)
def test_branches_that_are_added_become_one_convolution_exactly(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    network, images = trained(nn.Sequential(make())), torch.randn(8, 4, 8, 8)
    small = made(network, "merged_conv", images)
    torch.testing.assert_close(small(images), network(images), rtol=1e-4, atol=1e-5)
    others = torch.randn(2, 4, 12, 10)
    torch.testing.assert_close(small(others), network(others), rtol=1e-4, atol=1e-5)


NO_CONVOLUTIONS: dict[str, Callable[[], nn.Module]] = {
    "two with a ReLU": lambda: BasicBlock(4, 4),
    "another activation": lambda: nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.GELU()),
    "other padding": lambda: nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"),
    "no convolution": lambda: nn.Softmax(1),
}


@pytest.mark.parametrize("make", NO_CONVOLUTIONS.values(), ids=NO_CONVOLUTIONS)
def test_what_computes_no_convolution_is_not_merged(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    network, images = nn.Sequential(make()).eval(), torch.randn(8, 4, 8, 8)
    with pytest.raises(paramtrans.SpecMismatch, match="no one convolution"):
        paramtrans.translate(network, to={"0": "merged_conv"}, options={"steps": 0}, calibrate=images)


def test_convolutions_of_groups_become_grouped_exactly() -> None:
    """Each group of channels gives to the outputs by no more maps than it has channels."""
    torch.manual_seed(0)
    network, images = nn.Sequential(BasicBlock(4, 4)), torch.randn(8, 4, 6, 6)
    for layer in (network[0].conv1, network[0].conv2):
        grouped, pointwise = torch.randn(2, 2, 2, 3, 3), torch.randn(2, 4, 2)
        layer.weight.data = torch.einsum("gom,gmikl->ogikl", pointwise, grouped).flatten(1, 2) / 6
    small = made(network, "grouped_conv?groups=2", images)
    torch.testing.assert_close(small(images), network(images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("bias", [True, False])
def test_a_layer_norm_of_what_has_no_mean_is_an_rms_norm(bias: bool) -> None:
    torch.manual_seed(0)
    network, tokens = nn.Sequential(nn.LayerNorm(6, eps=1e-3, bias=bias)), torch.randn(40, 5, 6)
    tokens = tokens - tokens.mean(-1, keepdim=True)
    nn.init.normal_(network[0].weight)
    torch.testing.assert_close(made(network, "rms_norm", tokens)(tokens), network(tokens), rtol=1e-4, atol=1e-5)
    back = nn.Sequential(made(network, "rms_norm", tokens)[0])
    torch.testing.assert_close(made(back, "layer_norm", tokens)(tokens), network(tokens), rtol=1e-4, atol=1e-5)


def test_a_layer_norm_of_what_has_a_mean_is_near_an_rms_norm_alone() -> None:
    torch.manual_seed(0)
    network, tokens = nn.Sequential(nn.LayerNorm(6)), torch.randn(40, 5, 6) + 0.3
    [block] = made(network, "rms_norm", tokens).paramtrans_blocks
    assert 1e-3 < block.start_error < 0.5
    with pytest.raises(paramtrans.SpecMismatch, match="no normalisation over the last axis"):
        made(nn.Sequential(nn.Linear(6, 6)), "rms_norm", tokens)
