"""`basic_block` in existing networks: its own module and what is written like it, and nothing that merely looks so."""

from __future__ import annotations

import pytest
import torch
from paramtrans_blocks.basic import BasicBlockModule
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from paramtrans import components
from paramtrans.networks.blocks.finding import find_blocks, survey

REGISTRY = components()


class Written(nn.Module):
    """A BasicBlock as many write it."""

    def __init__(self, out: int = 4, eps: float = 1e-5, bias: bool = False, **conv: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(4, 6, 3, bias=bias, **{"padding": 1, **conv}), nn.BatchNorm2d(6, eps)
        self.conv2, self.bn2 = nn.Conv2d(6, out, 3, padding=1, bias=False), nn.BatchNorm2d(out, eps)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.relu(x + self.bn2(self.conv2(self.bn1(self.conv1(x)).relu())))


class WithoutSkip(Written):
    """The same layers, another function."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.relu(self.bn2(self.conv2(self.bn1(self.conv1(x)).relu())))


def kinds(module: nn.Module) -> list[str]:
    return [block.kind for block in find_blocks(module, REGISTRY)]


def test_its_own_module_and_one_written_like_it_are_known_whole() -> None:
    for module in (BasicBlockModule(4, 6, 3), Written()):
        [block] = find_blocks(nn.Sequential(module), REGISTRY)
        assert (block.kind, block.whole, block.sizes) == ("basic_block", True, {"hidden": 6})
        assert (block.adapter.options.channels, block.adapter.options.kernel) == (4, 3)
    assert kinds(BasicBlock(4, 4)) == []  # has layers of more names, and may have a stride


@pytest.mark.parametrize(
    "module",
    [Written(out=5), Written(eps=1e-3), Written(bias=True), Written(stride=2), Written(padding=0), Written(dilation=2)],
    ids=["other channels", "eps", "bias", "stride", "no padding", "dilation"],
)
def test_another_block_of_the_same_names_is_not(module: nn.Module) -> None:
    assert kinds(module) == []


def test_what_it_computes_decides() -> None:
    network = nn.Sequential(Written(), WithoutSkip()).eval()
    looked = survey(network, find_blocks(network, REGISTRY), torch.randn(2, 4, 9, 9))
    assert [block.path for block in looked.blocks] == ["0"]
    assert "it computes something else than basic_block does" in looked.refused["1"]


def test_only_blocks_of_an_adapters_own_kind_and_sizes_get_it() -> None:
    source = REGISTRY.create("block_adapter", "basic_block", channels=4, hidden=6, read="weights")
    network = nn.Sequential(Written(), BasicBlockModule(4, 5, 3), BasicBlock(4, 4))
    recognised = find_blocks(network, REGISTRY, source=source)
    assert [(block.path, block.adapter is source) for block in recognised] == [("0", True), ("1", False)]
