"""A warning of calibration inputs that are all the same, or for which a network gives the same."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import paramtrans
from paramtrans.networks.forward.activations import NamedInputs
from paramtrans.networks.forward.sameness import said_of_sameness


class Plus(nn.Module):
    def forward(self, x: Tensor, mask: Tensor | None = None, scale: float = 1.0) -> Any:
        return {"sum": scale * (x if mask is None else x + mask), "number": torch.tensor(1.0)}


VARIED = torch.arange(24.0).view(4, 6)
MASK = torch.ones(6)


@pytest.mark.parametrize(
    "batches",
    [
        [torch.zeros(8, 6)],
        [torch.ones(1, 6), torch.ones(1, 6), torch.ones(3, 6)],
        [{"x": torch.zeros(4, 6), "mask": MASK, "scale": 2.0}] * 2,
        [NamedInputs({"x": VARIED}, ())] * 2,
    ],
)
def test_inputs_that_are_all_the_same_are_warned_of(batches: list[Any]) -> None:
    assert "all calibration inputs are the same" in (said_of_sameness(Plus(), batches) or "")


@pytest.mark.parametrize(
    "batches",
    [
        [],
        [torch.ones(1, 6)],
        [VARIED],
        [torch.ones(2, 6), torch.ones(2, 5)],
        [torch.ones(2, 6), torch.zeros(2, 6)],
        [torch.cat([torch.zeros(3, 6), torch.ones(1, 6)])],
        [{"x": torch.zeros(4, 6), "mask": VARIED}],
        [NamedInputs({"x": VARIED}, ())],
    ],
)
def test_other_inputs_are_not(batches: list[Any]) -> None:
    assert said_of_sameness(Plus(), batches) is None


def test_a_network_that_always_gives_the_same_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    nn.init.constant_(network[0].bias, -100)
    with caplog.at_level(logging.WARNING):
        paramtrans.translate(network, "prune", calibrate=torch.randn(40, 6).split(16))
    assert caplog.text.count("gives the same for all calibration inputs") == 1
