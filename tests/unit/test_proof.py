"""What the proof sets in a network's code."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

import paramtrans


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
