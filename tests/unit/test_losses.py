"""What a translation lost: of inputs kept aside, by what outputs are, with costs and labels."""

from __future__ import annotations

import copy
import logging
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import paramtrans
from paramtrans.errors import DataError
from paramtrans.evaluation.footprint import peak_memory
from paramtrans.networks import measure_losses
from paramtrans.networks.forward.examples import Examples
from paramtrans.networks.results import translation_page
from paramtrans.networks.results.measuring import check_labels
from paramtrans.networks.results.predictions import kind_of, token_ids
from paramtrans.ops.statistics import paired_change, share


def network(outputs: int = 5) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, outputs)).eval()


def inputs(count: int = 80) -> Tensor:
    return torch.randn(count, 8, generator=torch.Generator().manual_seed(1))


def test_one_example_in_eight_is_kept_aside_whatever_the_batches() -> None:
    numbers = torch.arange(40)
    for size in (1, 7, 40):
        examples = Examples([{"x": part, "mask": torch.ones(3)} for part in numbers.split(size)])
        aside, fitted = (torch.cat([part["x"] for part in some]) for some in (examples.held_out(), examples.fitted()))  # type: ignore[call-overload,index]
        assert aside.tolist() == [7, 15, 23, 31, 39] and len(fitted) == 35
    few = Examples([numbers[:31]])
    assert not few.enough and list(few.fitted()) == list(few.held_out()) == [few.batches[0]]  # type: ignore[index]


def test_errors_of_blocks_are_of_inputs_that_nothing_was_fitted_to() -> None:
    """Changing the inputs kept aside changes the errors, and no parameter."""
    x, whole = inputs(), network()
    other = x.clone()
    other[7::8] *= 3
    first, second = (paramtrans.translate(whole, calibrate=some.split(20)) for some in (x, other))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    [before], [after] = first.paramtrans_blocks, second.paramtrans_blocks
    assert before.held_out and before.feature_error != after.feature_error
    with torch.no_grad():
        wanted, outputs = whole(x[7::8]), first(x[7::8])
    squared = (outputs - wanted).square().mean()
    error = (squared / wanted.var(0, correction=0).mean()).item()
    losses = measure_losses(whole, first, x.split(20))
    assert losses.held_out and losses.examples == 10
    assert losses.outputs[""] == pytest.approx(error, rel=1e-4)
    assert before.feature_error == pytest.approx(error, rel=1e-4)
    assert losses.agreement == int((outputs.argmax(1) == wanted.argmax(1)).sum()) / 10


def test_too_few_inputs_are_warned_of_where_something_was_fitted(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        small = paramtrans.translate(network(), "prune", calibrate=inputs(16))
        assert small.paramtrans_blocks[0].held_out and "kept aside" not in caplog.text
        small = paramtrans.translate(network(), calibrate=inputs(16))
    assert small.paramtrans_blocks[0].held_out is False and "give 32 or more" in caplog.text


class Tokens(nn.Module):
    """Scores of the next token, which is always the one after; `wide` also reads tokens behind."""

    def __init__(self, wide: bool = False) -> None:
        super().__init__()
        self.wide, self.scale = wide, nn.Parameter(torch.tensor(3.0))

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> dict[str, Tensor]:
        if attention_mask is not None and attention_mask.shape != input_ids.shape:
            raise ValueError("a mask of other examples")
        logits = self.scale * nn.functional.one_hot((input_ids + 1) % 12, 12).float()
        return {"logits": logits + input_ids.float().mean(1)[:, None, None] if self.wide else logits}


def test_what_an_output_is_follows_from_shapes_and_values() -> None:
    ids = (torch.arange(6) + torch.arange(4)[:, None]) % 12
    batch: dict[str, Any] = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    assert kind_of(Tokens(), batch, Tokens()(ids)["logits"]) == "tokens"
    assert kind_of(Tokens(wide=True), batch, Tokens(wide=True)(ids)["logits"]) == "embedding"
    unit = nn.functional.normalize(torch.randn(4, 6), dim=1)
    shapes = {"scores": torch.randn(4, 6), "embedding": unit, "values": torch.randn(4, 1)}
    assert {kind_of(network(), inputs(4), output) for output in shapes.values()} == set(shapes)


def test_perplexity_is_of_the_next_token_without_padding() -> None:
    before, after = Tokens(), Tokens()
    after.scale.data.fill_(1.0)
    ids = (torch.arange(6) + torch.arange(32)[:, None]) % 12
    mask = torch.ones_like(ids)
    ids[:, 4:], mask[:, 4:] = 0, 0
    losses = measure_losses(before, after, [{"input_ids": ids, "attention_mask": mask}])
    wanted = [1 + 11 * torch.tensor(-scale).exp().item() for scale in (3.0, 1.0)]  # of a softmax with one of 12 ahead
    assert losses.perplexity == pytest.approx(wanted, rel=1e-5) and losses.agreement == 1.0


def test_accuracy_has_an_interval_before_and_after_and_of_the_change() -> None:
    x, whole = inputs(), network()
    with torch.no_grad():
        labels = whole(x).argmax(1)
    small = paramtrans.translate(whole, ratio=0.25, calibrate=x)
    accuracy = measure_losses(whole, small, evaluate=[(x[:40], labels[:40]), (x[40:], labels[40:])]).accuracy
    assert accuracy is not None and accuracy.before.value == 1.0 and accuracy.examples == 80
    assert accuracy.after.ci95[0] < accuracy.after.value < accuracy.after.ci95[1]
    assert accuracy.change.value == pytest.approx(accuracy.after.value - 1.0)
    with pytest.raises(DataError, match="do not go with"):
        measure_losses(whole, small, evaluate=[(x, labels[:, None])])
    for of_no_class in (-100, 5):
        with pytest.raises(DataError, match="scores for 5 classes"):
            measure_losses(whole, small, evaluate=[(x, torch.full_like(labels, of_no_class))])


def test_intervals_are_those_of_their_sources() -> None:
    """Wilson's of 0 of 10 and of 5 of 10; no change at all still has an interval."""
    assert share(0, 10).ci95 == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert share(5, 10).ci95 == pytest.approx((0.2366, 0.7634), abs=1e-4)
    change = paired_change(0, 0, 98)
    assert change.value == 0 and change.ci95 == pytest.approx((-0.0277, 0.0277), abs=1e-4)


def test_peak_memory_counts_tensors_that_are_there_at_once() -> None:
    whole, x = network(), inputs(50)
    held = sum(p.nbytes for p in whole.parameters())
    assert peak_memory(whole, lambda: whole(x)) == held + 2 * 50 * 32 * 4  # the hidden layer before and behind its ReLU


def test_outputs_beyond_the_finite_numbers_are_told_and_give_no_record() -> None:
    whole, small = network(), network()
    for either in (whole, small):
        either[2].weight.data.mul_(3e38)
    with pytest.raises(DataError, match="no finite numbers"):
        measure_losses(whole, small, 1e3 * inputs())


def test_a_translated_network_that_alone_leaves_the_finite_numbers_is_at_fault_itself() -> None:
    for change in (lambda weight: weight.mul_(3e38), lambda weight: weight.fill_(torch.nan)):
        whole, small = network(), network()
        change(small[2].weight.data)
        with pytest.raises(DataError, match="where the untouched one does not; a translator, or the block"):
            measure_losses(whole, small, 1e3 * inputs())


@pytest.mark.thorough
def test_the_page_says_what_its_numbers_are_of() -> None:
    before = network()
    losses = measure_losses(before, before, inputs().split(20))
    block = {"path": "0", "adapters": ["units", "units"], "hidden": [[32], [16]], "parameters": [288, 144]}
    page = translation_page.page("small", [{**block, "feature_error": 0.25}], losses, [], {})
    assert "relative error of the output" in page and "50% kept, error 0.250" in page and "_text" not in page


def test_networks_in_train_mode_are_measured_in_eval_mode_and_stay_as_they_are() -> None:
    """Neither statistics of BatchNorm nor dropout have a part in what is measured."""
    torch.manual_seed(0)
    whole = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 4))
    whole[2].eval()
    before = {name: tensor.clone() for name, tensor in whole.state_dict().items()}
    flags = [module.training for module in whole.modules()]
    losses = measure_losses(whole, copy.deepcopy(whole), inputs(16), evaluate=[(inputs(4), torch.zeros(4).long())])
    assert losses.outputs == {"": 0.0}
    assert all(torch.equal(tensor, before[name]) for name, tensor in whole.state_dict().items())
    assert [module.training for module in whole.modules()] == flags


def test_numbers_of_sentences_are_no_mask() -> None:
    ids = torch.arange(2, 14).view(2, 6)
    sentences, mask = torch.zeros_like(ids), torch.ones_like(ids)
    sentences[:, 4:] = 1
    ids[:, 5], mask[:, 5] = 0, 0
    for batch in (
        {"input_ids": ids, "token_type_ids": sentences, "attention_mask": mask},
        {"input_ids": ids, "attention_mask": mask, "token_type_ids": sentences},
    ):
        assert torch.equal(token_ids(batch)[1], mask.bool())  # type: ignore[arg-type]


def test_labels_of_all_batches_are_checked_by_a_pass_of_the_first() -> None:
    whole = nn.Linear(6, 3).eval()
    good, bad = torch.zeros(4, dtype=torch.long), torch.full((4,), 255)
    check_labels(whole, [(torch.randn(4, 6), good)] * 2)
    with pytest.raises(DataError, match="labels go from 255 to 255, and the network has scores for 3 classes"):
        check_labels(whole, [(torch.randn(4, 6), good), (torch.randn(4, 6), bad)])
