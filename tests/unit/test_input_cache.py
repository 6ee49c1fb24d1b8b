"""What enters blocks is the same whether a network goes on from the block before or begins at its start."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from paramtrans import components
from paramtrans.networks.blocks.finding import NetworkBlock, find_blocks, survey
from paramtrans.networks.blocks.input_cache import InputCache
from paramtrans.networks.forward.activations import entering


def basic_block(channels: int) -> nn.Module:
    """One that `basic_block` recognises."""
    return components().create("block_adapter", "basic_block", channels=channels, hidden=4).module()


class Net(nn.Module):
    """Four blocks in a row, each behind a multiplication by `scales`; with `over`, what the first gives is added once
    more before the last."""

    def __init__(self, over: bool = False) -> None:
        super().__init__()
        self.stem, self.over, self.wider = nn.Conv2d(3, 4, 3), over, nn.Conv2d(4, 6, 1, 2)
        self.blocks = nn.ModuleList(basic_block(channels) for channels in (4, 6, 6, 6))
        self.more = nn.Conv2d(4, 6, 1, 2)

    def forward(self, x: Tensor, scales: Tensor | None = None) -> Tensor:
        first = self.blocks[0](self.stem(x))
        x = self.wider(first)
        for block in self.blocks[1:3]:
            x = block(x if scales is None else x * scales.view(-1, 1, 1, 1))
        outputs: Tensor = self.blocks[3](x + self.more(first) if self.over else x)
        return outputs


def case(over: bool = False) -> tuple[Net, list[NetworkBlock], list[Tensor]]:
    torch.manual_seed(0)
    network, batches = Net(over).eval(), [torch.randn(3, 3, 9, 9), torch.randn(2, 3, 9, 9)]
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.uniform_(0.5, 2)
            module.bias.data.normal_()
    return network, list(survey(network, find_blocks(network, components()), batches[0]).blocks), batches


def passes(network: nn.Module, path: str) -> list[int]:
    """The number of examples in each run of a layer from now on."""
    seen: list[int] = []
    network.get_submodule(path).register_forward_hook(lambda _, given, __: seen.append(len(given[0])))
    return seen


@pytest.mark.parametrize("over", [False, True])
def test_what_enters_a_block_is_the_same_as_from_the_networks_start(over: bool) -> None:
    network, blocks, batches = case(over)
    assert [block.path for block in blocks] == [f"blocks.{i}" for i in range(4)]
    small, caches = copy.deepcopy(network), InputCache(batches)
    for block in blocks:
        for model in (network, small):
            wanted = list(entering(model, block.entrance, batches))
            entered = list(caches.entering(model, block))
            assert [len(kept) for kept in entered] == [3, 2]
            for kept, wanted_piece in zip(entered, wanted, strict=True):
                torch.testing.assert_close(kept, wanted_piece)
        smaller = block.adapter.with_sizes({name: size // 2 for name, size in block.sizes.items()})
        block.replace(small, smaller, None)
    assert not any("forward" in vars(m) or m._forward_pre_hooks for model in (network, small) for m in model.modules())


def test_a_network_goes_on_from_the_block_before_and_tries_it_on_two_examples() -> None:
    network, blocks, batches = case()
    caches, first, third = InputCache(batches), passes(network, "blocks.0.conv2"), passes(network, "blocks.2.conv2")
    for block in blocks:
        caches.entering(network, block)
    # From the start two examples for each further block; behind the block before, these two and then all.
    assert first == [2, 2, 3, 2, 2, 2] and third == [2, 2, 3, 2]


def test_with_a_skip_over_blocks_the_network_runs_from_its_start() -> None:
    network, blocks, batches = case(over=True)
    caches, first = InputCache(batches), passes(network, "blocks.0.conv2")
    for block in blocks:
        caches.entering(network, block)
    assert first[-3:] == [2, 3, 2]


def test_named_arguments_are_there_for_every_example() -> None:
    network, blocks, [inputs, _] = case()
    batches = [{"x": inputs, "scales": torch.tensor([2.0, 2.0, 7.0])}]  # alike in what is tried
    caches = InputCache(batches)
    for block in blocks:
        [entered], [wanted] = caches.entering(network, block), entering(network, block.entrance, batches)
        torch.testing.assert_close(entered, wanted)


def test_blocks_that_are_left_out_run_as_they_stand() -> None:
    network, blocks, batches = case()
    caches = InputCache(batches)
    assert caches.known and not InputCache([]).known
    for block in (blocks[0], blocks[3]):
        entered = list(caches.entering(network, block))
        for kept, wanted_piece in zip(entered, entering(network, block.entrance, batches), strict=True):
            torch.testing.assert_close(kept, wanted_piece)
