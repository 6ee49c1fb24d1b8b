"""Rules for widths: budgets are kept and used, and units go where they are least important."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import paramtrans
from paramtrans import components
from paramtrans.errors import SpecMismatch
from paramtrans.evaluation.costs import parameters
from paramtrans.networks.allocation import Allotment
from paramtrans.networks.blocks.finding import costs
from paramtrans.networks.units.steps import Step, cheapest
from paramtrans.networks.widths import Budget, FlopBudget


@pytest.fixture
def network() -> nn.Sequential:
    """Half of the first block's hidden units are copies of the others, so that they are of no importance."""
    torch.manual_seed(0)
    adapter = components().create("block_adapter", "basic_block", channels=8, hidden=8)
    made = nn.Sequential(nn.Conv2d(3, 8, 3), adapter.module(), adapter.module(), nn.AvgPool2d(2))
    for block in (made[1], made[2]):
        block.conv1.weight.data.normal_(0, 0.3)
    for tensor in (made[1].conv1.weight, made[1].bn1.weight, made[1].bn1.bias):
        tensor.data[4:] = tensor.data[:4]
    return made.eval()


@pytest.fixture
def images() -> list[Tensor]:
    return list(torch.randn(40, 3, 9, 9, generator=torch.Generator().manual_seed(1)).split(10))


def hidden(small: nn.Module) -> list[int]:
    return [small.get_submodule(path).conv1.out_channels for path in ("1", "2")]  # type: ignore[union-attr, misc]


BY = pytest.mark.parametrize("by", ["blocks", "units"])


@pytest.mark.thorough
@BY
def test_a_budget_of_operations_is_kept_and_used(network: nn.Sequential, images: list[Tensor], by: Any) -> None:
    whole = costs(network, images[0])["flops"]
    small = paramtrans.translate(network, "prune", widths=FlopBudget(whole // 2), calibrate=images, by=by)
    assert 0.4 * whole < costs(small, images[0])["flops"] <= whole // 2
    for problem, batches in {"cannot be made of this one": images, "give (calibration )?inputs": []}.items():
        with pytest.raises(SpecMismatch, match=problem):
            paramtrans.translate(network, "prune", widths=FlopBudget(10), calibrate=batches, by=by)


@BY
def test_units_go_where_they_are_least_important(network: nn.Sequential, images: list[Tensor], by: Any) -> None:
    budget = parameters(network) - 2 * 4 * 8 * 9  # four hidden units are to go
    small = paramtrans.translate(network, widths=Allotment(budget, shares=(0.5,)), calibrate=images, by=by)
    assert hidden(small) == [4, 8] and parameters(small) <= budget
    alike = paramtrans.translate(network, widths=Budget(budget), calibrate=images, by=by)
    wanted = network(torch.cat(images))
    errors = [(smaller(torch.cat(images)) - wanted).square().mean().item() for smaller in (small, alike)]
    assert errors[0] < 0.1 * errors[1]


@BY
def test_an_allotment_that_cannot_be_measured_or_kept_is_refused(
    network: nn.Sequential, images: list[Tensor], by: Any
) -> None:
    for problem, batches, budget in (
        ("give (calibration )?inputs", [], 1000),
        ("cannot be made of this one with these shares", images[:1], 100),
    ):
        with pytest.raises(SpecMismatch, match=problem):
            paramtrans.translate(network, "prune", widths=Allotment(budget, "prune"), calibrate=batches, by=by)


def test_the_cheapest_widths_are_those_of_brute_force_where_errors_are_convex() -> None:
    steps = [
        [Step({}, saved, error) for saved, error in zip((0, 10, 20, 30), errors, strict=True)]
        for errors in ((0, 1, 3, 9), (0, 2, 5, 20), (0, 4, 8.5, 14))
    ]
    for over in range(0, 100, 10):
        chosen = cheapest(steps, over)
        every = [pick for pick in itertools.product(*steps) if sum(step.saved for step in pick) >= over]
        if not every:
            assert chosen is None
            continue
        assert chosen is not None and sum(step.saved for step in chosen) >= over
        best = min(sum(step.error for step in pick) for pick in every)
        assert sum(step.error for step in chosen) == pytest.approx(best)


def test_two_blocks_in_one_sequential_have_widths_of_their_own() -> None:
    torch.manual_seed(0)
    both = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 2),
    ).eval()  # fmt: skip
    small = paramtrans.translate(both, "prune", ratio=0.5, calibrate=[torch.randn(4, 3, 9, 9)])
    assert (small[0].out_channels, small[6].out_features) == (4, 10)
