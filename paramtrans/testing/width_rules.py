"""Checks of rules for widths, on small networks."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from paramtrans.networks.blocks.finding import find_blocks
from paramtrans.networks.forward.examples import Examples
from paramtrans.networks.graph.groups import analyse
from paramtrans.networks.units.widths import GroupSizes
from paramtrans.testing.check import Subject, check, drawing, expect

WIDTH, HIDDEN = 6, 16


class _Block(nn.Module):
    """A block of which most registries have an adapter, by its names: where none has, there is nothing to choose."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(WIDTH, HIDDEN, 1, bias=False), nn.BatchNorm2d(HIDDEN)
        self.conv2, self.bn2 = nn.Conv2d(HIDDEN, WIDTH, 1, bias=False), nn.BatchNorm2d(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x))))) + x)


def takes_groups(subject: Subject) -> bool:
    """Whether it is a rule for groups of units too."""
    return hasattr(subject.cls, "of_groups")


@check("width_rule", when=takes_groups)
def gives_numbers_of_units(subject: Subject) -> None:
    """For every group of units of a network's graph how many stay, from one to all."""
    with drawing(0):
        network = nn.Sequential(nn.Linear(WIDTH, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, WIDTH)).eval()
        rows = torch.randn(40, WIDTH)
    analysis = analyse(network, ((rows[:2],), {}))
    chosen = subject.create().of_groups(GroupSizes(analysis, analysis.groups, Examples([rows])))
    expect({*chosen} <= {*analysis.groups}, "groups that there are", [group.path for group in chosen])
    fits = all(1 <= count <= len(group) for group, count in chosen.items())
    expect(fits, f"from 1 to {HIDDEN} units", {group.path: count for group, count in chosen.items()})


@check("width_rule")
def gives_sizes_of_every_group(subject: Subject) -> None:
    """For every block the size of each of its groups, from one unit to all of them; the network stays as it is."""
    with drawing(0):
        network = nn.Sequential(_Block()).eval()
        batches = list(torch.randn(2, 8, WIDTH, 1, 1))  # as costly as the linear layers: budgets are of both
    before = copy.deepcopy(network.state_dict())
    blocks = find_blocks(network, subject.registry)
    chosen = subject.create()(network, blocks, batches)
    expect(chosen.keys() == {block.entrance for block in blocks}, "sizes of every block, by its entrance", list(chosen))
    for block in blocks:
        sizes = chosen[block.entrance]
        expect(sizes.keys() == block.sizes.keys(), f"sizes of the groups {list(block.sizes)}", list(sizes))
        fits = all(1 <= sizes[group] <= size for group, size in block.sizes.items())
        expect(fits, f"from 1 to {dict(block.sizes)} units", dict(sizes))
    same = all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    expect(same, "the network as it was", "changed parameters")
