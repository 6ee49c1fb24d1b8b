"""Every translator on groups of units of any network, one after the other, third-party ones too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import paramtrans
from paramtrans import BaseOptions, Component, Translator
from paramtrans.api.units import UnitCase, UnitPiece
from paramtrans.errors import SpecMismatch
from paramtrans.plugins.manager import components
from paramtrans.plugins.registry import Entry, Provider, Registry


class Net(nn.Module):
    """Convolutions with a skip, functions between the layers, and a gated pair behind: no adapter knows a block."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm0 = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.a, self.norm1 = nn.Conv2d(8, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12)
        self.b, self.norm2 = nn.Conv2d(12, 8, 1, bias=False), nn.BatchNorm2d(8)
        self.gate, self.up, self.down = nn.Linear(8, 16), nn.Linear(8, 16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu_(self.norm0(self.stem(x)))
        h = self.norm2(self.b(F.relu(self.norm1(self.a(x)), inplace=True)))
        h += x
        h = F.relu(h).mean((2, 3))
        return self.down(F.silu(self.gate(h)) * self.up(h))


@pytest.fixture
def network() -> Net:
    torch.manual_seed(0)
    made = Net()
    for _ in range(20):
        made(torch.randn(16, 3, 6, 6))  # statistics of the normalisations
    with torch.no_grad():
        for layer in (made.a, made.gate, made.up):
            layer.weight *= 4  # far from linear
    return made.eval()


@pytest.fixture
def images() -> Tensor:
    return torch.randn(96, 3, 6, 6, generator=torch.Generator().manual_seed(1))


def error(small: nn.Module, network: nn.Module, images: Tensor) -> float:
    with torch.no_grad():
        return float((small(images) - network(images)).square().mean() / network(images).var())


@pytest.mark.thorough
def test_matching_trains_writers_and_readers_of_a_group_together(network: Net) -> None:
    many = torch.randn(384, 3, 6, 6, generator=torch.Generator().manual_seed(3))
    fresh = torch.randn(200, 3, 6, 6, generator=torch.Generator().manual_seed(2))
    asked = {"ratio": 0.5, "by": "units", "calibrate": list(many.split(80))}
    options = {"steps": 100, "lr": 1e-2}
    refitted = paramtrans.translate(network, "refit", **asked)
    both = paramtrans.translate(network, "refit", **asked, then={"matching": options})
    alone = paramtrans.translate(network, "matching", **asked, options=options)
    errors = [error(small, network, fresh) for small in (refitted, both, alone)]
    assert errors[1] < 0.9 * errors[0] and errors[2] < 0.1, errors
    assert not torch.equal(both.a.weight, refitted.a.weight) and torch.equal(both.stem.weight, network.stem.weight)
    assert both.b.weight.requires_grad and both.a.weight.shape == (6, 8, 3, 3)
    errors = {block.path: block.feature_error for block in both.paramtrans_blocks}
    before = {block.path: block.feature_error for block in refitted.paramtrans_blocks}
    assert errors.keys() == before.keys() and all(0 < value < 1 for value in errors.values())


@pytest.mark.thorough
def test_a_feature_error_behind_matching_is_that_of_the_layers_end_on_examples_kept_aside(
    network: Net, images: Tensor
) -> None:
    small = paramtrans.translate(
        network, "refit", ratio=0.5, by="units", blocks="gate", calibrate=images,
        then={"matching": {"steps": 5}},
    )  # fmt: skip
    [block] = small.paramtrans_blocks
    with torch.no_grad():
        given, wanted = small(images[7::8]), network(images[7::8])
    unexplained = (given - wanted).square().sum() / (wanted - wanted.mean(0)).square().sum()
    assert block.feature_error == pytest.approx(float(unexplained), rel=0.05)
    few = paramtrans.translate(
        network, "refit", ratio=0.5, by="units", calibrate=images[:16], then={"matching": {"steps": 5}}
    )
    assert all(block.feature_error is None for block in few.paramtrans_blocks)  # all of them were fitted to


class PostNorm(nn.Module):
    """A feed-forward block as the first transformers had it: the sum with what entered goes through a LayerNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.up, self.down, self.out = (nn.Linear(*sizes) for sizes in ((6, 8), (8, 24), (24, 8), (8, 3)))
        self.norm = nn.LayerNorm(8)

    def forward(self, x: Tensor) -> Tensor:
        features = self.enter(x)
        normed = self.norm(features + self.down(self.up(features).relu()))
        outputs: Tensor = self.out(normed) + normed[..., :3]
        return outputs


def test_a_piece_goes_on_through_the_normalisation_behind_a_sum() -> None:
    """What is compared are features as they are read, and the norm's own weights are trained along."""
    torch.manual_seed(0)
    network, inputs = PostNorm().eval(), torch.randn(64, 6)
    small = paramtrans.translate(
        network, blocks="up", calibrate=inputs, then={"matching": {"steps": 60, "lr": 1e-3, "batch": 16}}
    )
    changed = {
        name
        for name, tensor in small.named_parameters()
        if tensor.shape != network.get_parameter(name).shape or not torch.equal(tensor, network.get_parameter(name))
    }
    assert changed == {"up.weight", "up.bias", "down.weight", "down.bias", "norm.weight", "norm.bias"}


def test_merged_units_are_the_mean_of_what_writes_them_and_the_sum_of_what_reads_them(images: Tensor) -> None:
    torch.manual_seed(0)
    twins = nn.Sequential(nn.Flatten(), nn.Linear(108, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))
    with torch.no_grad():
        for tensor in (twins[1].weight, twins[1].bias):
            tensor[4:] = tensor[:4]  # each unit twice
    wanted = twins(images)
    small = paramtrans.translate(twins, "merge", ratio={"1": 0.5}, by="units", calibrate=images)
    assert small[1].out_features == 4 and small[3].out_features == 6
    torch.testing.assert_close(small(images), wanted)
    pruned = paramtrans.translate(twins, "prune", ratio={"1": 0.5}, by="units", calibrate=images)
    assert error(pruned, twins, images) > 0.01


def test_merge_then_refit_and_convolutions(network: Net, images: Tensor) -> None:
    merged = paramtrans.translate(network, "merge", ratio=0.5, by="units", calibrate=images)
    refitted = paramtrans.translate(network, "merge", ratio=0.5, by="units", calibrate=images, then={"refit": {}})
    assert merged.a.out_channels == 6 and error(refitted, network, images) < error(merged, network, images)


def test_layers_around_a_group_are_rounded(network: Net, images: Tensor) -> None:
    small = paramtrans.translate(
        network, "refit", ratio=0.5, by="units", calibrate=images, then={"quantise": {"bits": 3}}
    )
    for layer in (small.a, small.b, small.gate, small.up, small.down):
        steps = layer.weight.flatten(1) / layer.weight.flatten(1).abs().amax(1, keepdim=True) * 3
        torch.testing.assert_close(steps, steps.round(), atol=1e-5, rtol=0)
    assert torch.equal(small.stem.weight, network.stem.weight)


class Odd(Translator):
    """A stranger's: units of odd numbers stay."""

    keeps_units: ClassVar[bool] = True

    @classmethod
    def keep(cls, options: BaseOptions, case: UnitCase) -> Tensor:
        return case.best((torch.arange(len(case)) % 2).double())

    def translate(self, source, context=None):  # type: ignore[no-untyped-def]
        raise NotImplementedError


class Halved(Translator):
    """A stranger's: goes on by halving biases."""

    adjusts_units: ClassVar[bool] = True

    @classmethod
    def adjust(cls, options: BaseOptions, piece: UnitPiece) -> Mapping[str, Tensor]:
        for entered, wanted in piece.batches:
            leaving = piece.run(piece.params, entered)
            assert [tensor.shape for tensor in leaving] == [tensor.shape for tensor in wanted]
        return {name: tensor / 2 for name, tensor in piece.params.items() if name.endswith("bias")}

    def translate(self, source, context=None):  # type: ignore[no-untyped-def]
        raise NotImplementedError


class Wrong(Halved):
    """A stranger's: writes what does not fit."""

    @classmethod
    def adjust(cls, options: BaseOptions, piece: UnitPiece) -> Mapping[str, Tensor]:
        return {name: tensor.new_zeros(1, 1, 1) for name, tensor in piece.params.items()}


STRANGER = Provider("strange", "1")


@pytest.fixture
def registry() -> Registry:
    """All plugins', and the three of a stranger."""
    made = [
        Component(cls.__name__.lower(), "a stranger's", f"{__name__}:{cls.__name__}") for cls in (Odd, Halved, Wrong)
    ]
    return Registry([*components(), *(Entry("translator", component, Provider("strange", "1")) for component in made)])


@pytest.mark.thorough
def test_strangers_translators_choose_units_and_go_on_from_others(
    network: Net, images: Tensor, registry: Registry
) -> None:
    asked = {"ratio": 0.5, "by": "units", "calibrate": images, "registry": registry}
    odd = paramtrans.translate(network, "odd", **asked)
    assert torch.equal(odd.a.weight, network.a.weight[1::2])
    halved = paramtrans.translate(network, "odd", **asked, then={"halved": {}})
    assert torch.equal(halved.gate.bias, odd.gate.bias / 2) and torch.equal(halved.norm1.bias, odd.norm1.bias / 2)
    assert torch.equal(halved.stem.bias, odd.stem.bias)
    with pytest.raises(SpecMismatch, match="is no tensor of this piece"):
        paramtrans.translate(network, "odd", **asked, then={"wrong": {}})


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["low_rank"], "low_rank writes blocks"),
        (["quantise"], "quantise goes on from units"),
        (["refit", "merge"], "merge chooses units"),
        (["refit", "low_rank"], "low_rank writes blocks"),
        (["prune", "matching", "refit"], "name it before matching"),
    ],
)
def test_what_works_on_no_units_is_refused_with_its_reason(
    network: Net, images: Tensor, names: list[str], said: str
) -> None:
    with pytest.raises(SpecMismatch, match=said):
        paramtrans.translate(network, names[0], by="units", calibrate=images, then={name: {} for name in names[1:]})
