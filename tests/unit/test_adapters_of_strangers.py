"""What is wrong with a stranger's block adapter is a reason why it cannot take a place, and no crash."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import paramtrans
from paramtrans import BlockAdapter, Component, SpecMismatch, hookimpl
from paramtrans.networks.parts.fits import part_fits
from paramtrans.plugins import Plugins
from paramtrans.plugins.registry import Provider, Registry


class Square(BlockAdapter):
    """A linear layer of three values."""

    trials = ({},)

    def module(self) -> nn.Module:
        return nn.Linear(3, 3)


class RaisesOptions(Square):
    @classmethod
    def options_for(cls, part: Any) -> dict[str, Any]:
        return {"stride": part.entering.shape[2]}


class RaisesStart(Square):
    def warm_start(self, part: Any) -> dict[str, Tensor]:
        raise KeyError("scale")


class StartsElsewhere(Square):
    def warm_start(self, part: Any) -> dict[str, Tensor]:
        return {"weight": torch.zeros(1, 2, 2)}


KINDS = {kind.__name__: kind for kind in (RaisesOptions, RaisesStart, StartsElsewhere)}


@pytest.fixture
def registry() -> Registry:
    class Strangers:
        @staticmethod
        @hookimpl
        def paramtrans_block_adapters() -> list[Component]:
            return [Component(name, "A stranger's.", f"{__name__}:{name}") for name in KINDS]

    plugins = Plugins()
    plugins._register(Strangers, Provider("strangers", "1"))
    return plugins.registry()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("RaisesOptions", r"0: .*options_for raises \(IndexError: tuple index out of range\)"),
        ("RaisesStart", r"0: .*warm_start raises \(KeyError: 'scale'\)"),
        ("StartsElsewhere", r"0: .*warm_start gives weight as \[1, 2, 2\], where \[1, 3, 3\] is expected"),
    ],
)
def test_it_is_a_reason(name: str, said: str, registry: Registry) -> None:
    network, rows = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2)).eval(), torch.randn(40, 3)
    with pytest.raises(SpecMismatch, match=said):
        paramtrans.translate(network, to={"0": name}, calibrate=rows, registry=registry)
    fits, refused = part_fits(network, name, "*", [rows], registry)
    assert not fits and "0" in refused
