"""Equations kept row by row say what their Gram matrices say."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import paramtrans
from paramtrans.ops.agreement import disagreement
from paramtrans.ops.directions import main_directions
from paramtrans.ops.few_rows import FewRows
from paramtrans.ops.halves import Halves
from paramtrans.ops.least_squares import GramMatrices
from paramtrans.ops.views import View, centred, plain, whole

VALUES, OUTPUTS = 30, 4


def few(rows: int = 12, seed: int = 0) -> FewRows:
    """Rows with a constant behind them that is not the same for all, as where rows are limited."""
    generator = torch.Generator().manual_seed(seed)
    read, wanted, scale = (torch.rand(1, rows, size, generator=generator).double() for size in (VALUES, OUTPUTS, 1))
    return FewRows(torch.cat([read, torch.ones_like(scale)], dim=2) * scale, wanted * scale)


def same(first: FewRows | GramMatrices, second: GramMatrices) -> None:
    matrices = first.gram_matrices()
    for got, expected in ((matrices.gram, second.gram), (matrices.cross, second.cross), (matrices.power, second.power)):
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("view", [whole, plain, centred])
def test_views_and_parts_are_those_of_the_gram_matrices(view: View) -> None:
    rows = few()
    matrices, chosen = rows.gram_matrices(), torch.tensor([7, 2, 30])
    same(view(rows), view(matrices).gram_matrices())
    same(rows + few(5, seed=1), matrices + few(5, seed=1).gram_matrices())
    same(rows.values(chosen), matrices.values(chosen))
    same(rows.some_outputs(3), matrices.some_outputs(3))
    gain = torch.rand(OUTPUTS).double()
    same(rows.scaled(gain), matrices.scaled(gain))
    torch.testing.assert_close(rows.spread(), matrices.spread())
    torch.testing.assert_close(rows.count, matrices.count)
    assert rows.size == matrices.size == VALUES + 1


def test_gram_matrices_to_choose_by_are_those_but_for_rounding_to_single_precision() -> None:
    rounded, matrices = few(40).gram_matrices(rounded=True), few(40).gram_matrices()
    assert rounded.gram.dtype == torch.double
    assert float((rounded.gram - matrices.gram).abs().max() / matrices.gram.abs().max()) < 1e-6
    assert torch.equal(rounded.gram, rounded.gram.mT)
    assert torch.equal(rounded.cross, matrices.cross) and torch.equal(rounded.power, matrices.power)


def test_halves_disagree_as_much_by_their_rows_as_by_their_gram_matrices() -> None:
    generator = torch.Generator().manual_seed(3)
    by_rows, by_matrices = Halves(), Halves()
    weights = torch.rand(1, 1100, 5, generator=generator)
    for half in range(2):
        read, wanted = (torch.rand(40, size, generator=generator) for size in (1100, 5))
        by_rows.add_rows(half, read, wanted)
        by_matrices.add_rows(half, read, wanted)
    for sums in by_matrices._sums.values():
        sums.matrices()
    assert isinstance(by_rows.halves[0], FewRows) and isinstance(by_matrices.halves[0], GramMatrices)
    doubts = [disagreement(plain, halves, weights, 80) for halves in (by_rows, by_matrices)]
    torch.testing.assert_close(doubts[0], doubts[1], rtol=1e-4, atol=0)


def test_what_others_can_say_is_taken_out_as_from_the_gram_matrices() -> None:
    rows = few(25).plain()
    others, values = torch.arange(5), torch.arange(5, VALUES)
    same(rows.without(others, values), rows.gram_matrices().without(others, values))
    same(rows.without(others[:0], values), rows.gram_matrices().values(values))


def test_combinations_of_the_values_of_units_are_those_of_the_gram_matrices() -> None:
    basis = main_directions(torch.rand(VALUES, OUTPUTS), 6, 2)
    assert basis.shape == (6, 5, 2)
    same(few().plain().combined(basis), few().gram_matrices().plain().combined(basis))


@pytest.mark.parametrize("strength", [1e-5, 1e-2, 10.0])
@pytest.mark.parametrize("view", [whole, plain, centred])
def test_the_ridge_and_its_error_are_those_of_the_gram_matrices(view: View, strength: float) -> None:
    rows, pull = view(few()), torch.tensor([strength]).double()
    matrices = rows.gram_matrices()
    start = torch.rand(1, rows.size, OUTPUTS).double()
    solved = rows.ridge(start, pull)
    torch.testing.assert_close(solved, matrices.ridge(start, pull), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(rows.squared_error(solved), matrices.squared_error(solved), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(rows.penalty(), matrices.penalty())


def of_halves(rows: int, values: int) -> Halves:
    generator, halves = torch.Generator().manual_seed(0), Halves()
    read = torch.rand(rows, values, generator=generator)
    weights = torch.randn(values, 3, generator=generator) / values**0.5
    for half in range(2):
        halves.add_rows(half, read[half::2], read[half::2] @ weights)
    return halves


def test_rows_are_kept_where_they_are_few_for_the_values_alone() -> None:
    assert isinstance(of_halves(40, 1200).total(), FewRows)
    assert isinstance(of_halves(40, 600).total(), GramMatrices)
    assert isinstance(of_halves(1300, 1200).total(), GramMatrices)
    uneven = of_halves(40, 1200)
    uneven.add_rows(0, torch.rand(700, 1200), torch.rand(700, 3))
    assert isinstance(uneven.total(), GramMatrices)  # one of the halves has many, so both are summed
    assert uneven.total().count.item() == 740


def test_the_ridge_chosen_on_halves_is_that_of_the_gram_matrices(monkeypatch: pytest.MonkeyPatch) -> None:
    start = torch.zeros(1, 1201, 3).double()
    rows = of_halves(40, 1200)
    strength, solved = rows.ridge(whole, start), rows.total().ridge(start, rows.ridge(whole, start))
    monkeypatch.setattr("paramtrans.ops.halves.MANY_VALUES", 10**9)
    summed = of_halves(40, 1200)
    assert isinstance(summed.total(), GramMatrices)
    assert strength in (1e-5, 1e-3, 1e-1, 1e2)
    torch.testing.assert_close(solved, summed.total().ridge(start, strength), rtol=1e-4, atol=1e-5)  # single precision


def flattened() -> nn.Module:
    torch.manual_seed(0)
    convolutions = [nn.Conv2d(3, 24, 3), nn.BatchNorm2d(24), nn.ReLU()]
    return nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(24 * 14 * 14, 32), nn.ReLU(), nn.Linear(32, 5)).eval()


@pytest.mark.thorough
@torch.no_grad()
def test_a_linear_behind_flattened_features_is_solved_for_by_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    images, others = torch.rand(2, 48, 3, 16, 16)
    network = flattened()
    wanted: Tensor = network(others)
    sizes: list[int] = []
    gram_matrices = FewRows.gram_matrices

    def watched(rows: FewRows, rounded: bool = False) -> GramMatrices:
        sizes.append(rows.size)
        return gram_matrices(rows, rounded)

    monkeypatch.setattr(FewRows, "gram_matrices", watched)
    small = paramtrans.translate(network, "refit", ratio=0.5, calibrate=images)
    assert small.get_submodule("4").weight.shape == (16, 12 * 14 * 14)
    assert sizes and max(sizes) <= 4096  # 24 units of 196 values each: 4,704
    pruned = paramtrans.translate(network, "prune", ratio=0.5, calibrate=images)
    assert (small(others) - wanted).norm() < 0.5 * (pruned(others) - wanted).norm()
