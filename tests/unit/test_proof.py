"""What the proof sets in a network's code, and what it compares."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import relu

import paramtrans
from paramtrans import SpecMismatch
from paramtrans.networks.graph.proof import largest_difference


class Window(nn.Module):
    """Its number of hidden units is by chance the number of positions that it looks at."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = self.window = 16
        self.a, self.b = nn.Linear(4, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, -self.window :]
        output: Tensor = self.b(relu(self.a(x)).reshape(-1, self.hidden)).view(x.shape[0], -1, 3).mean(1)
        return output


def test_an_attribute_that_holds_the_same_number_stays() -> None:
    torch.manual_seed(0)
    small = paramtrans.translate(Window().eval(), "prune", calibrate=torch.randn(8, 6, 4), by="units", ratio=0.5)
    assert (small.hidden, small.window) == (8, 16)


class Classes(nn.Module):
    """Gives classes, or complex numbers."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way, self.up, self.down = way, nn.Linear(4, 8), nn.Linear(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        scores = self.down(relu(self.up(x)))
        return scores.argmax(-1) if self.way == "classes" else torch.complex(scores, scores.sin())


def test_a_network_that_gives_no_numbers_to_compare_is_refused() -> None:
    with pytest.raises(SpecMismatch, match="gives no numbers that can be compared"):
        paramtrans.translate(Classes("classes").eval(), "prune", calibrate=torch.randn(8, 4), by="units", ratio=0.5)


def test_complex_numbers_are_compared() -> None:
    inputs = torch.randn(8, 4)
    small = paramtrans.translate(Classes("complex").eval(), "prune", calibrate=inputs, by="units", ratio=0.5)
    assert small(inputs).is_complex() and small.up.out_features == 4  # type: ignore[union-attr]
    first = torch.tensor([1 + 2j])
    assert largest_difference([first], [first.conj()]) == 2.0
