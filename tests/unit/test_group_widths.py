"""Widths of groups of units: rounded to multiples, within budgets, by measured errors."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import paramtrans
from paramtrans.errors import SpecMismatch
from paramtrans.evaluation.costs import parameters
from paramtrans.networks import Allotment, Budget, FlopBudget, LatencyBudget, Ratio
from paramtrans.networks.blocks.finding import costs
from paramtrans.networks.units.rounding import Rounding


@pytest.mark.parametrize(
    ("rounding", "size", "wanted", "count"),
    [
        (Rounding(), 63, 31.0, 31),  # narrow: as asked
        (Rounding(), 100, 50.0, 48),
        (Rounding(), 100, 53.0, 56),
        (Rounding(), 100, 100.0, 100),  # all of them stay
        (Rounding(), 100, 5.0, 5),  # a multiple would be far from it
        (Rounding(1), 100, 50.0, 50),
        (Rounding(16), 63, 10.0, 16),
        (Rounding(16), 12, 6.0, 12),  # no multiple below
        (Rounding(least=6), 63, 2.0, 6),
    ],
)
def test_numbers_of_units_are_rounded(rounding: Rounding, size: int, wanted: float, count: int) -> None:
    assert rounding(size, wanted) == count
    assert Rounding(16)(size, wanted, unrounded=True) == max(1, round(min(size, wanted)))


@pytest.fixture
def network() -> nn.Sequential:
    """Half of the units of the first group are copies of the others, so that they are of no importance."""
    torch.manual_seed(0)
    made = nn.Sequential(nn.Linear(6, 24), nn.Tanh(), nn.Linear(24, 20), nn.Tanh(), nn.Linear(20, 4))
    with torch.no_grad():
        made[0].weight *= 3
        made[2].weight *= 3
        for tensor in (made[0].weight, made[0].bias):
            tensor[12:] = tensor[:12]
    return made.eval()


@pytest.fixture
def rows() -> list[Tensor]:
    return list(torch.randn(128, 6, generator=torch.Generator().manual_seed(1)).split(32))


def widths(small: nn.Module) -> list[int]:
    return [small.get_submodule(path).out_features for path in ("0", "2")]  # type: ignore[misc]


@pytest.mark.usefixtures("linear_blocks")
def test_widths_become_multiples_and_no_fewer_than_asked(network: nn.Sequential, rows: list[Tensor]) -> None:
    for rule, wanted in (
        (Ratio(0.5, multiple_of=8), [16, 8]),  # 12 and 10: to the nearest
        (Ratio(0.1, least=5), [5, 5]),
        (Budget(parameters(network) // 2, multiple_of=4), None),
    ):
        small = paramtrans.translate(network, "prune", widths=rule, by="units", calibrate=rows)
        assert wanted is None or widths(small) == wanted
    assert all(width % 4 == 0 for width in widths(small)) and parameters(small) <= parameters(network) // 2
    with pytest.raises(SpecMismatch, match="multiple_of"):
        paramtrans.translate(network, "prune", widths=Ratio(0.5, multiple_of=0), by="units", calibrate=rows)
    blocks = paramtrans.translate(network, "prune", widths=Ratio(0.5, multiple_of=8), by="blocks", calibrate=rows)
    assert all(width % 8 == 0 for width in widths(blocks))


def test_whole_heads_are_counted_and_not_their_values() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 32, 1), nn.GroupNorm(4, 32), nn.ReLU(), nn.Conv2d(32, 2, 1)).eval()
    small = paramtrans.translate(
        network, "prune", widths=Ratio(0.5, multiple_of=8), by="units", calibrate=torch.randn(4, 3, 5, 5)
    )
    assert small[0].out_channels == 16 and small[1].num_groups == 2


def test_units_stay_where_they_are_worth_more(network: nn.Sequential, rows: list[Tensor]) -> None:
    fresh = torch.randn(400, 6, generator=torch.Generator().manual_seed(2))
    budget = 404
    measured = paramtrans.translate(network, widths=Allotment(budget), by="units", calibrate=rows)
    alike = paramtrans.translate(network, widths=Budget(budget), by="units", calibrate=rows)
    assert parameters(measured) <= budget and parameters(alike) <= budget
    assert widths(measured)[0] < widths(alike)[0] and widths(measured)[1] > widths(alike)[1]
    with torch.no_grad():
        errors = [float((smaller(fresh) - network(fresh)).square().mean()) for smaller in (measured, alike)]
    assert errors[0] < 0.5 * errors[1]


@pytest.mark.thorough
def test_an_allotment_keeps_budgets_of_operations_and_of_time(network: nn.Sequential, rows: list[Tensor]) -> None:
    whole = costs(network, rows[0])["flops"]
    small = paramtrans.translate(
        network, widths=Allotment(flops=whole // 2, shares=(0.25, 0.5)), by="units", calibrate=rows
    )
    assert 0.35 * whole < costs(small, rows[0])["flops"] <= whole // 2
    for wrong, problem in (
        (Allotment(flops=10), "cannot be made of this one"),
        (Allotment(), "one budget"),
        (Allotment(parameters=9, flops=9), "one budget"),
        (Allotment(milliseconds=1e-6, shares=(0.5,)), "cannot be made of this one"),
    ):
        with pytest.raises(SpecMismatch, match=problem):
            paramtrans.translate(network, widths=wrong, by="units", calibrate=rows)
    with pytest.raises(SpecMismatch, match='by="units"'):
        paramtrans.translate(network, widths=Allotment(flops=whole // 2), by="blocks", calibrate=rows)


@pytest.mark.usefixtures("linear_blocks")
@pytest.mark.parametrize("by", ["units", "blocks"])
def test_a_budget_of_time_is_measured(by: str, monkeypatch: pytest.MonkeyPatch, rows: list[Tensor]) -> None:
    """With a clock that goes by the parameters: the widest network within the budget is taken."""
    network = nn.Sequential(nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 4)).eval()
    for module in ("units.widths", "widths"):
        monkeypatch.setattr(f"paramtrans.networks.{module}.latency", lambda network, batch: float(parameters(network)))
    small = paramtrans.translate(network, "prune", widths=LatencyBudget(140.0), by=by, calibrate=rows)
    assert small[0].out_features == 12  # 136 parameters; 13 units would have 147
    with pytest.raises(SpecMismatch, match="milliseconds cannot be made"):
        paramtrans.translate(network, "prune", widths=LatencyBudget(3.0), by=by, calibrate=rows)


def test_a_budget_of_operations_on_groups(network: nn.Sequential, rows: list[Tensor]) -> None:
    whole = costs(network, rows[0])["flops"]
    small = paramtrans.translate(network, "prune", widths=FlopBudget(whole // 2), by="units", calibrate=rows)
    assert 0.4 * whole < costs(small, rows[0])["flops"] <= whole // 2
