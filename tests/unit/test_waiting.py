"""Units that one layer reads are chosen when it is reached: by what it is to make up for."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import relu

import paramtrans
from paramtrans import SpecMismatch
from paramtrans.networks.graph.groups import analyse
from paramtrans.networks.graph.waiting import can_wait

THERE = {"choose": "there"}


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(8, 24), nn.Linear(24, 8)

    def forward(self, x: Tensor) -> Tensor:
        summed: Tensor = x + self.down(relu(self.up(x)))
        return summed


class TwoReaders(nn.Module):
    """The units of the first layer are read twice, those of the second once."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.a, self.b, self.out = nn.Linear(8, 12), nn.Linear(12, 10), nn.Linear(12, 10), nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = relu(self.first(x))
        output: Tensor = self.out(relu(self.a(hidden) * self.b(hidden)))
        return output


def rows(seed: int, count: int = 256) -> Tensor:
    """Rows of one distribution: the first are for calibration."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(8, 8, generator=generator)
    return torch.randn(count, 8, generator=generator) @ mixing


@pytest.fixture
def inputs() -> Tensor:
    return rows(0)


def network(count: int = 6, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(*(Block() for _ in range(count)), nn.Linear(8, 4)).eval()


@torch.no_grad()
def error(small: nn.Module, whole: nn.Module, inputs: Tensor) -> float:
    return float((small(inputs) - whole(inputs)).square().mean() / whole(inputs).var())


@pytest.mark.thorough
def test_later_units_make_up_for_more() -> None:
    later, before = [], []
    for seed in range(8):
        whole, drawn = network(seed=seed), rows(seed, 768)
        for errors, options in ((later, THERE), (before, {})):
            small = paramtrans.translate(whole, ratio=0.25, calibrate=drawn[:256], options=options)
            errors.append(error(small, whole, drawn[256:]))
    assert sum(later) < 0.9 * sum(before)


def test_groups_of_several_readers_are_chosen_before(inputs: Tensor) -> None:
    torch.manual_seed(0)
    whole = TwoReaders().eval()
    groups = {len(group.readers): group for group in analyse(whole, ((inputs[:2],), {})).groups}
    counts = dict.fromkeys(groups.values(), 4)
    assert can_wait(groups[1], counts) and not can_wait(groups[2], counts)
    small = paramtrans.translate(whole, ratio=0.5, calibrate=inputs, options=THERE)
    assert (small.first.out_features, small.a.out_features, small.out.in_features) == (6, 5, 5)
    assert {block.path for block in small.paramtrans_blocks} == {group.path for group in groups.values()}


def test_what_cannot_be_written_so_is_written_as_before(inputs: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> Any:
        raise SpecMismatch("it gives something else")

    whole = network(2)
    monkeypatch.setattr(import_module("paramtrans.networks.units.narrowing"), "write_rest", refuse)
    small = paramtrans.translate(whole, ratio=0.5, calibrate=inputs, options=THERE)
    assert small[0].up.out_features == 12 and len(small.paramtrans_blocks) == 2


def test_units_that_something_else_reads_are_seen(inputs: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing may read units that go; where something does, the smaller network differs, and is not taken."""

    class Leaking(Block):
        def forward(self, x: Tensor) -> Tensor:
            hidden = relu(self.up(x))
            return x + self.down(hidden) + hidden.sum(-1, keepdim=True)

    torch.manual_seed(0)
    whole = nn.Sequential(Leaking(), nn.Linear(8, 4)).eval()
    written: list[bool] = []
    narrowing = import_module("paramtrans.networks.units.narrowing")
    write_rest = narrowing.write_rest

    def watched(*arguments: Any) -> Any:
        written.append(False)
        result = write_rest(*arguments)
        written[-1] = True
        return result

    monkeypatch.setattr(narrowing, "write_rest", watched)
    small = paramtrans.translate(whole, ratio=0.5, calibrate=inputs, options=THERE)
    assert written == [False] and small[0].up.out_features == 12
