"""Translators that go on from blocks of another architecture, as they do from units."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

import paramtrans
from paramtrans import BaseOptions, Component, Context, Params, SpecMismatch, Translator, UnitPiece, hookimpl
from paramtrans.errors import UnknownName
from paramtrans.plugins import Plugins
from paramtrans.plugins.registry import Provider, Registry


class Halving(Translator):
    """Halves every tensor of a piece, and remembers what it was given."""

    Options = BaseOptions
    adjusts_units = True
    seen: ClassVar[list[UnitPiece]] = []

    def translate(self, source: Params, context: Context | None = None) -> Params:
        raise NotImplementedError

    @classmethod
    def adjust(cls, options: BaseOptions, piece: UnitPiece) -> Mapping[str, Tensor]:
        cls.seen.append(piece)
        return {name: tensor / 2 for name, tensor in piece.params.items()}


class Growing(Halving):
    """Writes tensors of another shape."""

    @classmethod
    def adjust(cls, options: BaseOptions, piece: UnitPiece) -> Mapping[str, Tensor]:
        return {name: torch.zeros(1, 2, 3) for name in piece.params}


class OfFile:
    """The plugins of a file."""

    @hookimpl
    def paramtrans_translators(self) -> list[Component]:
        return [Component(name, name, f"{__name__}:{name.title()}") for name in ("halving", "growing")]


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3)).eval()


@pytest.fixture
def inputs() -> Tensor:
    return torch.randn(48, 6, generator=torch.Generator().manual_seed(1))


TO = {"2": "low_rank_linear?rank=2", "4": "low_rank_linear?rank=1"}
START = {"steps": 0}


def test_feature_matching_goes_on_from_blocks_of_another_architecture(network: nn.Module, inputs: Tensor) -> None:
    small = paramtrans.translate(
        network, to=TO, options=START, then={"matching": {"steps": 60}}, calibrate=inputs.split(16)
    )
    alone = paramtrans.translate(network, to=TO, options=START, calibrate=inputs.split(16))
    expected = network(inputs).detach()
    errors = [float((other(inputs).detach() - expected).square().mean()) for other in (small, alone)]
    assert errors[0] < errors[1]
    for block in small.paramtrans_blocks:
        assert block.feature_error < block.start_error  # on inputs that nothing was fitted to


@pytest.fixture
def registry() -> Registry:
    plugins = Plugins()
    plugins.load_entry_points()
    plugins.register(OfFile(), Provider("acme", "1"))
    Halving.seen.clear()
    return plugins.registry()


def test_a_translator_of_a_plugin_sees_a_block_as_a_piece(
    network: nn.Module, inputs: Tensor, registry: Registry
) -> None:
    asked: dict[str, Any] = {"to": TO, "options": START, "calibrate": inputs.split(16), "registry": registry}
    alone = paramtrans.translate(network, **asked)
    small = paramtrans.translate(network, then={"halving": {}}, **asked)
    first, second = Halving.seen
    assert [first.path, second.path] == ["2", "4"]
    batches = list(first.batches)
    assert sum(len(entered[0]) for entered, _ in batches) == 42  # of 48, six are kept aside
    entered, leaving = batches[0]
    assert torch.equal(leaving[0], network[2](entered[0]))
    assert torch.equal(first.run(alone[2].state_dict(), entered)[0], alone[2](entered[0]))
    for name, tensor in small[2].state_dict().items():
        assert torch.equal(tensor, alone[2].state_dict()[name] / 2)
    # What comes behind goes on from what was written.
    entered_second = next(iter(second.batches))[0][0]
    assert torch.equal(entered_second, small[3](small[2](entered[0])))


def test_tensors_of_another_shape_are_refused(network: nn.Module, inputs: Tensor, registry: Registry) -> None:
    with pytest.raises(SpecMismatch, match=r"2: .* is no tensor of this piece"):
        paramtrans.translate(network, to=TO, then={"growing": {}}, calibrate=inputs, options=START, registry=registry)


def test_those_that_cannot_go_on_are_refused_with_those_that_can(network: nn.Module, inputs: Tensor) -> None:
    with pytest.raises(SpecMismatch, match=r"refit goes on from no block of another architecture; .*matching"):
        paramtrans.translate(network, to=TO, then={"refit": {}}, calibrate=inputs)
    with pytest.raises(UnknownName, match="nowhere"):
        paramtrans.translate(network, to=TO, then={"nowhere": {}}, calibrate=inputs)
