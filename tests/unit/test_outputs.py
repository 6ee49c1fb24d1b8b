"""Tensors of what a network gives: in dataclasses too, and where there are none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import paramtrans
from paramtrans.errors import SpecMismatch
from paramtrans.networks import measure_losses
from paramtrans.networks.forward.outputs import named_outputs, tensors_in
from paramtrans.networks.results.stock import outputs_of


@dataclass
class Output:
    logits: Tensor
    hidden: Tensor | None = None


class Opaque:
    """What no one looks into."""

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits


class Network(nn.Module):
    """It gives what a function makes of scores and one of its two hidden features."""

    def __init__(self, given: Any) -> None:
        super().__init__()
        self.given, self.shown, self.hidden, self.head = given, nn.Linear(8, 16), nn.Linear(16, 16), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Any:
        shown = self.shown(x).relu()
        return self.given(self.head(self.hidden(shown).relu()), shown)


def test_all_tensors_are_named_wherever_they_are() -> None:
    one, ids = torch.ones(1), torch.ones(1).long()
    output = {"a": Output(one, ids), "b": [one, (Output(one),)], "c": Output}
    assert [*named_outputs(output)] == ["a.logits", "b.0", "b.1.0.logits"]
    assert [id(tensor) for tensor in tensors_in(output)] == [id(one), id(ids), id(one), id(one)]
    assert [*named_outputs(one)] == [""] and named_outputs(Opaque(one)) == {}


def test_features_in_a_dataclass_are_outputs() -> None:
    torch.manual_seed(0)
    x, network = torch.randn(16, 8), Network(lambda scores, shown: (scores, Output(scores, shown))).eval()
    small = paramtrans.translate(network, "prune", calibrate=x)
    assert small.shown.out_features == 16 and small.hidden.out_features == 8
    assert [*measure_losses(network, small, x).outputs] == ["0", "1.logits", "1.hidden"]
    assert len(outputs_of(network, x)) == 3


def test_where_nothing_is_given_that_is_said() -> None:
    with pytest.raises(SpecMismatch, match="the network gives no tensors, alone or in lists"):
        paramtrans.translate(Network(lambda scores, _: Opaque(scores)).eval(), "prune", calibrate=torch.randn(4, 8))
