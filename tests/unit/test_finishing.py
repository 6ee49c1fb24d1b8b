"""A translated network as a whole, fitted to what the network gave."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import paramtrans
from paramtrans import components
from paramtrans.errors import ConfigError, SpecMismatch
from paramtrans.networks.finishing import FinishOptions, exchanged, finish_network
from paramtrans.networks.forward.activations import NamedInputs
from paramtrans.utils.progress import Reporter


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    stem = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    adapter = components().create("block_adapter", "basic_block", channels=8, hidden=8)
    return nn.Sequential(stem, adapter.module(), adapter.module(), head).eval()


@pytest.fixture
def images() -> Tensor:
    return torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "way",
    [
        {"translator": "prune", "by": "blocks"},
        {"translator": "prune", "by": "units"},
        {"to": {"1": "bottleneck?hidden=[2,2]"}, "options": {"steps": 5}},
    ],
)
def test_the_outputs_come_nearer_whatever_was_translated(network: nn.Module, images: Tensor, way: Any) -> None:
    others = torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(1))

    def lost(**further: Any) -> float:
        small = paramtrans.translate(network, calibrate=images.split(16), **way, **further)
        assert all(parameter.requires_grad for parameter in small.parameters())
        with torch.no_grad():
            return float((small(others) - network(others)).square().mean())

    assert lost(finish={"steps": 40, "batch": 16}) < 0.9 * lost()


def test_what_was_not_translated_stays_as_it_was(network: nn.Module, images: Tensor) -> None:
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    small = paramtrans.translate(network, blocks="2", by="blocks", calibrate=images, finish={"steps": 5, "batch": 16})
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    stays = [name for name in before if not name.startswith("2.")]
    assert all(torch.equal(small.state_dict()[name], before[name]) for name in stays)
    assert not small.training


def test_fixed_differences_between_outputs_are_no_variance(network: nn.Module, images: Tensor) -> None:
    def error_before(offset: float) -> float:
        shifted = copy.deepcopy(network)
        with torch.no_grad():
            shifted[3][2].bias.add_(offset * torch.arange(4))
        small = paramtrans.translate(shifted, "prune", by="units", calibrate=images)
        fitted = finish_network(FinishOptions(steps=1), shifted, small, [images], 0, Reporter())
        assert fitted is not None
        return fitted.before

    assert error_before(100.0) == pytest.approx(error_before(0.0), rel=1e-3)


@pytest.mark.thorough
def test_outputs_that_are_too_many_to_hold_are_computed_anew(
    network: nn.Module, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def result() -> Tensor:
        small = paramtrans.translate(network, calibrate=images.split(16), finish={"steps": 3, "batch": 16})
        return torch.cat([parameter.detach().flatten() for parameter in small.parameters()])

    held = result()
    monkeypatch.setattr("paramtrans.networks.finishing.BYTES_HELD", 300)  # the outputs of one batch
    torch.testing.assert_close(result(), held)


@pytest.mark.parametrize("finish", [{"steps": 0}, {"rate": 1}, {"lr": float("nan")}, 0])
def test_wrong_settings_are_refused(network: nn.Module, images: Tensor, finish: Any) -> None:
    with pytest.raises(ConfigError, match="finish"):
        paramtrans.translate(network, calibrate=images, finish=finish)


def test_it_needs_inputs(network: nn.Module) -> None:
    with pytest.raises(SpecMismatch, match="finish"):
        paramtrans.translate(network, "prune", finish=3)


@pytest.mark.thorough
@pytest.mark.parametrize("further", [{}, {"ratio": 0.5, "translator": "prune"}])
@pytest.mark.parametrize("training", [False, True])
def test_behind_blocks_left_out_the_outputs_are_held_to_the_whole_networks(
    network: nn.Module, images: Tensor, further: Any, training: bool
) -> None:
    with torch.no_grad():
        due = network(images)
    network.train(training)

    def lost(**finish: Any) -> float:
        small = paramtrans.translate(network, depth=0.5, calibrate=images.split(16), **further, **finish)
        assert all(module.training is training for module in small.modules())
        with torch.no_grad():
            return float((small.eval()(images) - due).square().mean())

    assert lost(finish={"steps": 40, "batch": 16}) < 0.9 * lost()


def test_wrong_settings_are_told_before_any_work(network: nn.Module) -> None:
    with pytest.raises(ConfigError, match="finish"):
        paramtrans.translate(network, calibrate=iter(()), finish={"rate": 1})


@pytest.mark.thorough
def test_modules_that_are_named_come_nearer_too(network: nn.Module, images: Tensor) -> None:
    others = torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(1))

    def lost(**finish: Any) -> float:
        settings = {"steps": 240, "batch": 16, **finish}
        small = paramtrans.translate(network, "prune", calibrate=images.split(16), by="units", finish=settings)
        with torch.no_grad():
            return float((small[:2](others) - network[:2](others)).square().mean())

    assert lost(at="1") < 0.8 * lost()


def test_modules_that_are_not_in_both_networks_are_refused(network: nn.Module, images: Tensor) -> None:
    for way, at, words in (
        ({"by": "units"}, "9", 'matches "9"'),
        ({"to": {"1": "linear_map"}, "options": {"steps": 1}}, "1.*", "the smaller network has no 1."),
        ({"by": "units"}, "1.conv1", "do not"),
    ):
        with pytest.raises(SpecMismatch, match=words):
            paramtrans.translate(network, calibrate=images, finish={"steps": 1, "at": at}, **way)


def test_exchanged_tokens_are_of_other_examples_at_the_same_position() -> None:
    tokens = torch.arange(400).view(20, 20)
    inputs = {"input_ids": tokens, "attention_mask": torch.ones(20, 20, dtype=torch.long), "scale": torch.randn(20, 3)}
    mixed = exchanged(inputs, 0.5, torch.Generator().manual_seed(0))
    assert torch.equal(mixed["input_ids"] % 20, tokens % 20) and mixed["scale"] is inputs["scale"]
    assert torch.equal(mixed["attention_mask"], inputs["attention_mask"])
    of_others = (mixed["input_ids"] != tokens).float().mean(1)
    assert 5 <= (of_others > 0).sum() <= 15 and 0.2 < of_others[of_others > 0].mean() < 0.7


def test_of_inputs_known_by_name_those_of_examples_are_exchanged() -> None:
    tokens, table = torch.arange(400).view(20, 20), torch.arange(60).view(20, 3)
    inputs = NamedInputs({"input_ids": tokens, "table": table}, ["input_ids"])
    mixed = exchanged(inputs, 0.5, torch.Generator().manual_seed(0))
    assert isinstance(mixed, NamedInputs) and mixed.per_example == inputs.per_example
    assert mixed["table"] is table and not torch.equal(mixed["input_ids"], tokens)


def test_steps_alone_see_exchanged_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Embedding(9, 6), nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3)).eval()
    tokens, shares = torch.randint(0, 9, (40, 5)), list[float]()

    def spy(inputs: Tensor, share: float, generator: torch.Generator) -> Tensor:
        shares.append(share)
        return exchanged(inputs, share, generator)

    monkeypatch.setattr("paramtrans.networks.finishing.exchanged", spy)
    finish = {"steps": 5, "batch": 16, "exchange": 0.5}
    paramtrans.translate(network, "prune", calibrate=tokens, by="units", finish=finish)
    assert shares == [0.5] * 5
