"""Checks of translators that work on units of any network, on a small one of linear layers."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from paramtrans.api.units import Entered, UnitCase, UnitPiece
from paramtrans.networks.translate import translate
from paramtrans.testing.check import Subject, check, drawing, expect

WIDTH, HIDDEN, KEPT = 6, 12, 6


def chooses(subject: Subject) -> bool:
    """Whether it chooses units, or merges them."""
    return bool(subject.cls.keeps_units or subject.cls.merges_units)


@check("translator", when=chooses)
def chooses_units(subject: Subject) -> None:
    """Of a group as many units as were asked for stay, in order; merged ones are shares that add up to one."""
    with drawing(0):
        weights = (torch.randn(HIDDEN, WIDTH), torch.randn(HIDDEN, 4))
    case = UnitCase(weights, KEPT, summed=(False, True))
    options = subject.cls.Options(**subject.options)
    if subject.cls.merges_units:
        shares = subject.cls.merge(options, case)
        whole = shares.shape == (KEPT, HIDDEN) and torch.allclose(shares.sum(1), shares.new_ones(KEPT), atol=1e-4)
        expect(whole, f"{KEPT} rows of {HIDDEN} shares that add up to one each", shares.tolist())
        kept = shares.argmax(1)
    else:
        kept = subject.cls.keep(options, case)
    ordered = kept.shape == (KEPT,) and bool((kept.diff() > 0).all()) and int(kept[0]) >= 0 and int(kept[-1]) < HIDDEN
    expect(ordered, f"{KEPT} different units below {HIDDEN}, in order", kept.tolist())


@check("translator", when=lambda subject: bool(subject.cls.adjusts_units))
def goes_on_from_units(subject: Subject) -> None:
    """What it writes for a piece of a network are tensors of that piece, finite, and of its shapes."""
    with drawing(0):
        params = {"up": torch.randn(KEPT, WIDTH), "down": torch.randn(4, KEPT)}
        entered, wanted = torch.randn(8, WIDTH), torch.randn(8, 4)

    def run(weights: Mapping[str, Tensor], given: Entered) -> tuple[Tensor, ...]:
        return (torch.relu(given[0] @ weights["up"].mT) @ weights["down"].mT,)

    piece = UnitPiece("units", params, run, [((entered,), (wanted,))], 0)
    written = subject.cls.adjust(subject.cls.Options(**subject.options), piece)
    shapes = {name: list(tensor.shape) for name, tensor in written.items()}
    fits = all(name in params and tensor.shape == params[name].shape for name, tensor in written.items())
    expect(fits, "tensors of the piece, of their shapes", shapes)
    expect(all(bool(tensor.isfinite().all()) for tensor in written.values()), "finite values", "others")


@check("translator", when=chooses)
def translates_any_network(subject: Subject) -> None:
    """A network is translated by the units that its graph shows, twice alike, and stays as it was."""
    with drawing(0):
        network = nn.Sequential(nn.Linear(WIDTH, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, 4)).eval()
        rows = torch.randn(40, WIDTH)
    before = network.state_dict()["0.weight"].clone()
    made = [
        translate(
            network, subject.name, ratio=0.5, by="units", calibrate=rows, options=subject.options,
            registry=subject.registry,
        )
        for _ in range(2)
    ]  # fmt: skip
    sizes = [network[0].out_features for network in made]  # type: ignore[index]
    expect(sizes == [KEPT, KEPT], f"{KEPT} units", sizes)
    alike = all(torch.equal(a, b) for a, b in zip(made[0].parameters(), made[1].parameters(), strict=True))
    expect(alike, "the same network twice", "another one")
    expect(torch.equal(before, network.state_dict()["0.weight"]), "the network as it was", "changed parameters")
