"""Habits of other people's code that no part of a translation may stumble over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import paramtrans
from paramtrans.errors import DataError, SpecMismatch


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 4))
        self.scales = nn.Parameter(torch.ones(3))

    def forward(self, rows: Tensor) -> Any:
        return self.net(rows)


class ReturnsNothing(Plain):
    """Its `train` does not return it, as of some that freeze their first layers."""

    def train(self, mode: bool = True) -> None:  # type: ignore[override]
        super().train(mode)


class ExtraState(Plain):
    """What it keeps beside tensors."""

    def get_extra_state(self) -> dict[str, int]:
        return {"version": 3}

    def set_extra_state(self, state: dict[str, int]) -> None:
        assert state == {"version": 3}


class Summed(Plain):
    """A sum over all values of a parameter, which no layer reads."""

    def forward(self, rows: Tensor) -> Tensor:
        return self.net(rows) + self.scales.sum()


@pytest.fixture
def rows() -> Tensor:
    return torch.randn(48, 6, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", [ReturnsNothing, ExtraState, Summed])
def test_it_is_translated_and_comes_back(kind: type[nn.Module], rows: Tensor, tmp_path: Path) -> None:
    small = paramtrans.translate(kind(), ratio=0.5, calibrate=rows)
    assert small.net[0].out_features == 8
    paramtrans.save_translated(small, tmp_path / "small.safetensors")
    again = paramtrans.load_translated(tmp_path / "small.safetensors", kind())
    assert torch.allclose(again(rows), small(rows))


def test_state_that_is_no_tensor_is_named(rows: Tensor, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    paramtrans.save_translated(paramtrans.translate(ExtraState(), calibrate=rows), tmp_path / "small.safetensors")
    assert "_extra_state: is not written, as it is no tensor" in caplog.text


def test_probes_are_drawn_for_a_network_whose_train_returns_nothing() -> None:
    assert paramtrans.draw_probes(ReturnsNothing(), (6,), "noise", count=3).shape == (3, 6)


class WithLoss(Plain):
    """As models of transformers that are given labels: a loss for all examples goes before the scores."""

    def forward(self, rows: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        scores = self.net(rows)
        return ({} if labels is None else {"loss": cross_entropy(scores, labels)}) | {"scores": scores}


class Stacked(Plain):
    """Examples are on the second axis of an output."""

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        scores = self.net(rows)
        return torch.stack([scores, 2 * scores, 3 * scores]), scores


@pytest.mark.parametrize("kind", [WithLoss, Stacked])
def test_outputs_without_an_entry_for_each_example_are_compared_and_fitted(kind: type[nn.Module], rows: Tensor) -> None:
    inputs = {"rows": rows, "labels": torch.arange(48) % 4} if kind is WithLoss else rows
    network = kind().eval()
    small = paramtrans.translate(network, ratio=0.5, calibrate=inputs, finish=20)
    losses = paramtrans.measure_losses(network, small, inputs)
    assert losses.examples == 6 and losses.agreement is not None and losses.outputs


class OfNodes(Plain):
    """A batch is one graph, whose nodes are what has an entry each."""

    def forward(self, rows: Tensor, edges: Tensor) -> Tensor:
        return torch.mm(edges, self.net(torch.mm(edges, rows)))


def test_of_batches_that_are_one_example_all_entries_count() -> None:
    graphs = [{"rows": torch.randn(20, 6), "edges": torch.randn(20, 20).softmax(1)} for _ in range(40)]
    network = OfNodes().eval()
    small = paramtrans.translate(network, ratio=0.5, calibrate=graphs, finish=3)
    losses = paramtrans.measure_losses(network, small, graphs)
    assert losses.examples == 5 * 20 and losses.agreement is not None


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"calibrate": [torch.randn(40, 6), torch.randn(0, 6)]}, "batch 2 has no examples"),
        ({"to": {"net.0": 5}}, "takes the name of a target by pattern"),
        ({"to": {}}, "names no parts"),
        ({"to": {"net.0": "low_rank_linear"}, "sequential": False}, "leave out sequential"),
        ({"to": {"net.0": "low_rank_linear"}, "translator": "prune"}, "leave out translator"),
        ({"ratio": {3: 0.5}}, "takes shares by pattern of paths"),
    ],
)
def test_arguments_that_cannot_be_are_refused_in_words(asked: dict[str, Any], said: str, rows: Tensor) -> None:
    with pytest.raises((SpecMismatch, DataError), match=said):
        paramtrans.translate(Plain(), **{"calibrate": rows, **asked})


def test_layers_without_shapes_yet_are_named(rows: Tensor) -> None:
    with pytest.raises(SpecMismatch, match="shapes in their first pass; run it once"):
        paramtrans.translate(nn.Sequential(nn.LazyLinear(8), nn.ReLU(), nn.LazyLinear(2)), calibrate=rows)


@pytest.mark.parametrize("evaluate", [(torch.zeros(4, 6), torch.zeros(4)), [(torch.zeros(4, 6), torch.zeros(4), 1)]])
def test_labels_are_pairs(evaluate: Any, rows: Tensor) -> None:
    network = Plain().eval()
    with pytest.raises(DataError, match="list of pairs of inputs and their labels"):
        paramtrans.measure_losses(network, network, rows, evaluate=evaluate)
