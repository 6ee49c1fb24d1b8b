"""Rows of the equations: some positions where there are many, the right ones, and not more for more examples."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from paramtrans.ops import rows as module
from paramtrans.ops.halves import Halves
from paramtrans.ops.least_squares import GramMatrices
from paramtrans.ops.rows import positions, rows

LAYERS = {
    "plain": nn.Conv2d(3, 4, 3),
    "padded": nn.Conv2d(3, 4, (3, 2), padding=(1, 0)),
    "with steps": nn.Conv2d(3, 4, 3, stride=2, padding=2, dilation=2),
    "of signals": nn.Conv1d(3, 4, 3, stride=2, padding=2, dilation=2),
    "linear": nn.Linear(3, 4),
}


def fed(layer: nn.Module, examples: int) -> tuple[Tensor, Tensor]:
    """What enters two models of a layer, and what leaves them."""
    shapes = {nn.Conv2d: (3, 9, 8), nn.Conv1d: (3, 19), nn.Linear: (9, 8, 3)}
    shape = (2, examples, *shapes[type(layer)])
    entered = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return entered, torch.stack([layer(inputs) for inputs in entered])


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_drawn_rows_are_some_of_all_and_still_say_what_leaves(layer: nn.Module) -> None:
    entered, left = fed(layer, 5)
    [(every, _)] = rows(layer, entered, left)
    [(some, due)] = rows(layer, entered, left, most=4, seed=1)
    assert some.shape == (2, 20, every.shape[2]) and due.shape == (2, 20, 4)
    weight = layer.weight.detach().flatten(1)
    torch.testing.assert_close(some @ weight.mT + layer.bias.detach(), due, rtol=1e-4, atol=1e-5)
    for model in range(2):
        same = (some[model][:, None] == every[model][None]).all(2)
        assert same.any(1).all() and same.any(0).sum() == 20  # no position twice
        place = same.float().argmax(1)
        assert (place // (every.shape[1] // 5)).bincount().tolist() == [4] * 5  # as many of each example


def test_more_examples_are_no_more_rows_beyond_what_the_equations_need(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_ROWS", 500)
    layer, counts = LAYERS["plain"], []
    for examples in (8, 40, 160):
        halves = Halves(examples)
        for start in range(0, examples, 8):
            entered, left = fed(layer, 8)
            halves.add(layer, entered + start, left)
        counts.append(int(halves.total().gram[0, -1, -1]))  # of the constant: one for each row
    assert counts == [8 * 42, 40 * 13, 160 * 4]  # all 42 positions of each, then 500 rows and what rounding adds
    assert positions(nn.Linear(1000, 4), 100) == module.ROWS_A_VALUE * 1000 // 100
    assert positions(layer, 0) > 10**9


@pytest.mark.parametrize("pieces", [1, 7])
def test_sums_in_pieces_and_blocks_are_those_of_all_rows_in_double_precision(pieces: int) -> None:
    generator = torch.Generator().manual_seed(0)
    read, wanted = (torch.randn(5000, size, generator=generator) for size in (600, 3))  # more than one block of columns
    halves = Halves()
    for read_rows, wanted_rows in zip(read.chunk(pieces), wanted.chunk(pieces), strict=True):
        halves.add_rows(0, read_rows, wanted_rows)
    plain, summed = GramMatrices.of(read[None], wanted[None]), halves.total()
    for expected, got in ((plain.gram, summed.gram), (plain.cross, summed.cross), (plain.power, summed.power)):
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=5e-3)  # of sums of 5,000 in single precision
    assert torch.equal(summed.gram, summed.gram.mT)
    torch.testing.assert_close(plain.spread(), plain.centred().power)
