"""What the graph cannot follow is told with the line of the network's own code, and with nothing else."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import paramtrans
from paramtrans import SpecMismatch


class Deciding(nn.Module):
    def __init__(self, decide: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.last, self.decide = nn.Linear(6, 12), nn.Linear(12, 4), decide

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.decide(torch.relu(self.first(x))))  # type: ignore[no-any-return]


def asks_a_value(x: Tensor) -> Tensor:
    if x.sum() > 0:
        return 2 * x
    return x


def counts_to_a_value(x: Tensor) -> Tensor:
    for _ in range(int(x.max().item())):
        x = 1.1 * x
    return x


def leaves_torch(x: Tensor) -> Tensor:
    return x + float(x.detach().numpy().sum())


@pytest.mark.parametrize(
    ("decide", "line"),
    [
        (asks_a_value, "if x.sum() > 0:"),
        (counts_to_a_value, "for _ in range(int(x.max().item())):"),
        (leaves_torch, "return x + float(x.detach().numpy().sum())"),
    ],
)
def test_the_line_that_the_graph_cannot_follow_is_named(
    decide: Callable[[Tensor], Tensor], line: str, capfd: pytest.CaptureFixture[str]
) -> None:
    network = nn.Sequential(Deciding(decide)).eval()
    with pytest.raises(SpecMismatch, match=r"test_following\.py:\d+ \(") as refused:
        paramtrans.translate(network, by="units", calibrate=torch.randn(40, 6))
    assert f"({line})" in str(refused.value)
    assert capfd.readouterr() == ("", "")
