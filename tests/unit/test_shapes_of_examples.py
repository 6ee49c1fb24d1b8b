"""Translators go on from examples of every shape, such as sentences of every length."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import relu

import paramtrans
from paramtrans.networks.forward.examples import Examples
from paramtrans.networks.graph.same_shape import MOST_SHAPES, by_shape


class Sentences(nn.Module):
    """A feed-forward block between two layers, for `[batch, length, 6]`; attention of one length is in its code."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.up, self.down, self.out = nn.Linear(6, 8), nn.Linear(8, 24), nn.Linear(24, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        features = self.enter(x)
        alike = (features @ features.mT).softmax(2).view(len(x), x.shape[1], -1)
        features = features + alike @ features
        output: Tensor = self.out(features + self.down(relu(self.up(features))))
        return output


def network() -> nn.Module:
    torch.manual_seed(0)
    return Sentences().eval()


def sentences(length: int, count: int) -> Tensor:
    return torch.randn(count, length, 6, generator=torch.Generator().manual_seed(length))


@torch.no_grad()
def error(small: nn.Module, whole: nn.Module) -> float:
    others = sentences(9, 200)
    return float((small(others) - whole(others)).square().mean() / whole(others).var())


@pytest.mark.thorough
def test_all_lengths_are_matched_on_whatever_comes_first() -> None:
    """Eight short sentences come first; those that follow are as many as it takes."""
    whole, lengths = network(), (5, 6, 7)
    options = {"matching": {"steps": 60, "lr": 3e-3, "batch": 32}}
    few = [sentences(2, 8)]
    many = [*few, *(sentences(length, 64) for length in lengths)]
    by_few, by_many = (
        paramtrans.translate(whole, ratio=0.4, blocks="up", calibrate=batches, then=options) for batches in (few, many)
    )
    solved = paramtrans.translate(whole, ratio=0.4, blocks="up", calibrate=many)
    assert error(by_many, whole) < error(solved, whole) < error(by_few, whole)


class Choosing(Sentences):
    """Of sentences of two words `torch.export` cannot follow the code."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(-x if x.shape[1] == 2 and float(x.sum()) > 1e9 else x)


def test_a_shape_that_cannot_be_followed_keeps_the_others_from_nothing() -> None:
    whole = Choosing().eval()
    batches = [sentences(5, 40), sentences(2, 8)]
    solved, matched = (
        paramtrans.translate(whole, ratio=0.4, blocks="up", calibrate=batches, then=then)
        for then in ({}, {"matching": {"steps": 2, "lr": 1e-3}})
    )
    assert not torch.equal(matched.up.weight, solved.up.weight)


def test_batches_have_one_shape_each_and_those_of_most_examples_come_first() -> None:
    shapes = {2: 8, 5: 40, 6: 3}
    examples = Examples([sentences(length, count) for length, count in shapes.items()])
    batches = by_shape(examples, 16)
    assert [fit[0][0][0].shape[1] for fit, _ in batches] == [5, 2, 6]
    assert all({batch[0][0].shape for batch in [*fit, *aside]} == {fit[0][0][0].shape} for fit, aside in batches)
    assert [len(fit[0][0][0]) for fit, _ in batches] == [16, 7, 3]
    assert len(by_shape(Examples([sentences(length, 1) for length in range(2, 50)]), 16)) == MOST_SHAPES
