"""Residual streams in the basis of their principal axes: the network computes what it did, most energy first."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from paramtrans.errors import SpecMismatch
from paramtrans.networks.forward.activations import arguments, call, first_examples, tensors_in
from paramtrans.networks.graph.proof import named_tensors
from paramtrans.networks.stream.axes import principal_axes, second_moments
from paramtrans.networks.stream.modules import ModuleChange, repeat
from paramtrans.networks.stream.rotation import Rotated, rotated
from paramtrans.plugins.manager import components

VALUES = torch.randn(16, 5, 3, generator=torch.Generator().manual_seed(0))
TOKENS = torch.randint(3, 20, (8, 6), generator=torch.Generator().manual_seed(0))
IMAGES = torch.randn(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def uneven(network: nn.Module) -> nn.Module:
    """A network in eval mode none of whose parameters is constant: norms have weights that matter."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return network.eval()


class Block(nn.Module):
    """A pre-norm branch."""

    def __init__(self, norm: nn.Module, bias: bool = True) -> None:
        super().__init__()
        self.norm, self.up, self.down = norm, nn.Linear(8, 12, bias=bias), nn.Linear(12, 8, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(F.silu(self.up(self.norm(x))))


class OffsetNorm(nn.Module):
    """An RMSNorm written out, which multiplies by one more than its weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(8))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * (1 + self.weight)


class Tokens(nn.Module):
    """Embeddings and positions, two blocks, and a head that may be tied to the embeddings."""

    def __init__(self, norm: Any, tied: bool = False, bias: bool = True) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(20, 8), nn.Linear(8, 20, bias=False)
        self.positions = nn.Parameter(torch.zeros(1, 6, 8))
        self.blocks = nn.Sequential(Block(norm(), bias), Block(norm(), bias))
        self.norm = norm()
        if tied:
            self.head.weight = self.embed.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(self.embed(x) + self.positions)))


class Scaled(nn.Module):
    """What a branch adds is scaled unit by unit, as LayerScale does."""

    def __init__(self, also_read: bool = False) -> None:
        super().__init__()
        self.enter, self.norm, self.leave = nn.Linear(3, 8), nn.RMSNorm(8), nn.Linear(8, 4)
        self.branch, self.gamma, self.also_read = nn.Linear(8, 8), nn.Parameter(torch.ones(8)), also_read

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        added = self.branch(self.norm(x))
        x = x + added * self.gamma
        return self.leave(self.norm(x + added if self.also_read else x))


def around(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(3, 8), *layers, nn.Linear(8, 4))


def turned(network: nn.Module, inputs: Any) -> Rotated:
    """A rotated network; the original is as it was, and both give the same for all inputs."""
    before = copy.deepcopy(network.state_dict())
    positional, named = arguments(first_examples(inputs, 2))
    result = rotated(network, (positional, named), [first_examples(inputs, 4), inputs])
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    with torch.no_grad():
        given, wanted = (tensors_in(call(model, inputs)) for model in (result.network, network))
    for output, wanted_output in zip(given, wanted, strict=True):
        difference = float((output - wanted_output).abs().max() / wanted_output.abs().max())
        assert difference < 1e-4 and result.difference < 1e-4
    return result


def moments(result: Rotated, inputs: Any) -> Tensor:
    """Second moments of what the readers of a rotated stream are given."""
    tensors = named_tensors(result.network)
    readers = {id(tensors[name]): "" for name, axis in result.streams[0].axes if axis == 1 and tensors[name].ndim == 2}
    return second_moments(result.network, [inputs], readers, {"": len(result.streams[0].energies)})[""]


@pytest.mark.parametrize(
    ("network", "inputs", "changes"),
    [
        (lambda: around(Block(nn.RMSNorm(8)), Block(nn.RMSNorm(8)), nn.RMSNorm(8)), VALUES, []),
        (lambda: around(Block(nn.LayerNorm(8)), nn.LayerNorm(8)), VALUES, ["1.norm rms_norm", "2 rms_norm"]),
        (lambda: around(Block(OffsetNorm()), OffsetNorm()), VALUES, []),
        (lambda: Tokens(OffsetNorm, tied=True), TOKENS, ["head untied"]),
        (Scaled, VALUES, []),
    ],
)
def test_outputs_are_the_same_and_energies_decrease(network: Any, inputs: Tensor, changes: list[str]) -> None:
    result = turned(uneven(network()), inputs)
    energies = result.streams[0].energies
    assert [f"{change.module} {change.kind}" for change in result.changes] == changes
    assert energies.shape == (8,) and bool((energies.diff() <= 1e-9).all()) and energies[0] > 1.2
    # Norms have no weights left that tell units apart.
    torch.testing.assert_close(float(energies.sum()), 8.0)
