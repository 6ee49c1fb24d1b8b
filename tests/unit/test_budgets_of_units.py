"""Budgets with narrower streams, heads, queries and keys, and with groups that stay: kept, or refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import paramtrans
from paramtrans.errors import SpecMismatch
from paramtrans.evaluation.costs import parameters
from paramtrans.networks import Allotment, Budget, FlopBudget, LatencyBudget
from paramtrans.networks.blocks.finding import costs
from tests.support.attending import Attention


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.attention = nn.Linear(8, 24), Attention(24, 4)
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(24), nn.LayerNorm(24), nn.LayerNorm(24)
        self.up, self.down, self.head = nn.Linear(24, 48), nn.Linear(48, 24), nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        x = x + self.attention(self.norm1(x))
        return self.head(self.norm3(x + self.down(F.relu(self.up(self.norm2(x))))))


class Fixed(nn.Module):
    """Code that takes no fewer units of the first layer."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down, self.last = nn.Linear(8, 12), nn.Linear(12, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.up(x)).unflatten(-1, (3, 4)).flatten(-2)
        return self.last(F.relu(self.down(x)))


@pytest.fixture
def inputs() -> Tensor:
    return torch.randn(64, 6, 8, generator=torch.Generator().manual_seed(0))


def made(kind: type[nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return kind().eval()


@pytest.mark.thorough
@pytest.mark.parametrize("measured", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("asked", [{"stream": 0.75, "rotate": True}, {"query_key": 0.5, "stream": 0.75}])
def test_budgets_count_what_goes_on_request(asked: dict[str, Any], measured: bool, inputs: Tensor) -> None:
    whole = made(Transformer)
    for name, full in (("parameters", parameters(whole)), ("flops", costs(whole, inputs)["flops"])):
        budget = int(0.6 * full)
        of = {"parameters": Budget, "flops": FlopBudget}[name]
        rule = Allotment(**{name: budget}) if measured else of(budget)
        small = paramtrans.translate(whole, widths=rule, calibrate=inputs, **asked)
        left = parameters(small) if name == "parameters" else costs(small, inputs)["flops"]
        assert 0.85 * budget < left <= budget


@pytest.mark.parametrize(("kind", "translator"), [(Fixed, "prune"), (Transformer, "merge")])
def test_other_groups_make_up_for_those_that_stay(kind: type[nn.Module], translator: str, inputs: Tensor) -> None:
    whole = made(kind)
    budget = int(0.75 * parameters(whole))
    small = paramtrans.translate(whole, translator, widths=Budget(budget), calibrate=inputs)
    assert 0.9 * budget < parameters(small) <= budget and len(small.paramtrans_refused) == 1
    with pytest.raises(SpecMismatch, match=r"cannot be made of this one.*are left; (up|attention) stays as"):
        paramtrans.translate(whole, translator, widths=Budget(parameters(whole) // 4), calibrate=inputs)


@pytest.mark.thorough
def test_a_budget_of_time_with_a_narrower_stream(inputs: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paramtrans.networks.units.widths.latency", lambda network, batch: parameters(network) / 1000)
    whole = made(Transformer)
    for rule in (LatencyBudget(3.0), Allotment(milliseconds=3.0)):
        small = paramtrans.translate(whole, "prune", widths=rule, calibrate=inputs, stream=0.75, query_key=0.5)
        assert 2400 < parameters(small) <= 3000
    with pytest.raises(SpecMismatch, match="milliseconds cannot be made"):
        paramtrans.translate(whole, "prune", widths=LatencyBudget(0.1), calibrate=inputs, stream=0.75)
