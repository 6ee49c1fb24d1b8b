"""The change of accuracy that is expected without labels is the one that comes, where probabilities are calibrated."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import paramtrans
from paramtrans.errors import DataError
from paramtrans.networks.losses import Accuracy, Costs, Losses, Share
from paramtrans.networks.results.described import sentences
from paramtrans.networks.results.expected import ExpectedChange, probabilities
from paramtrans.ops.statistics import Estimate


def scores(examples: int = 4000, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Of two networks, the second a worse copy of the first."""
    generator = torch.Generator().manual_seed(seed)
    before = 2 * torch.randn(examples, 5, generator=generator)
    return before, before + 2 * torch.randn(examples, 5, generator=generator)


def expected(before: Tensor, after: Tensor) -> Estimate:
    change = ExpectedChange()
    for batch in zip(before.split(333), after.split(333), strict=True):
        change.add(*batch)
    estimate = change.estimate()
    assert estimate is not None
    return estimate


@pytest.mark.parametrize("seed", range(5))
def test_with_labels_drawn_from_the_probabilities_it_is_the_change_that_comes(seed: int) -> None:
    before, after = scores(seed=seed)
    generator = torch.Generator().manual_seed(10 + seed)
    labels = torch.multinomial(before.softmax(1), 1, generator=generator)[:, 0]
    right = [(given.argmax(1) == labels).double() for given in (before, after)]
    came = right[1] - right[0]
    estimate = expected(before, after)
    assert estimate.value < -0.1
    assert abs(came.mean() - estimate.value) < 4 * came.std() / len(came) ** 0.5
    low, high = estimate.ci95
    assert low < estimate.value < high and high - low < 0.05


def test_probabilities_are_taken_as_they_are() -> None:
    before, after = scores()
    torch.testing.assert_close(probabilities(before), probabilities(before.softmax(1)), atol=1e-6, rtol=0)
    assert expected(before.softmax(1), after).value == pytest.approx(expected(before, after).value, abs=1e-6)


def test_it_is_nothing_where_predictions_stay_and_at_most_what_changed() -> None:
    before, after = scores()
    assert expected(before, 3 * before).value == 0
    few = expected(before[:8], 3 * before[:8])
    assert few.value == 0 and few.ci95[0] < -0.1 and few.ci95[1] > 0.1  # so few may all stay by chance
    changed = (before.argmax(1) != after.argmax(1)).double().mean()
    assert -changed < expected(before, after).value < 0
    assert expected(1000 * before, after).value == pytest.approx(-float(changed), abs=0.01)


def test_one_example_says_nothing() -> None:
    change = ExpectedChange()
    change.add(*scores(1))
    assert change.estimate() is None


def test_pixels_of_an_image_count_together() -> None:
    before, after = (given.view(1000, 4, 5).mT for given in scores())
    estimate = expected(before, after)
    assert estimate.value == pytest.approx(expected(*scores()).value, abs=1e-12)


def network() -> nn.Module:
    """One that is sure of its classes."""
    torch.manual_seed(0)
    whole = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 5)).eval()
    whole[2].weight.data.mul_(20)
    return whole


def test_a_translation_is_told_what_to_expect_and_labels_say_it_better(caplog: pytest.LogCaptureFixture) -> None:
    whole, inputs = network(), torch.randn(400, 6)
    small = paramtrans.translate(whole, "prune", ratio=0.25, calibrate=inputs)
    losses = paramtrans.measure_losses(whole, small, inputs)
    assert losses.expected_change is not None and losses.agreement is not None
    assert -1 + losses.agreement <= losses.expected_change.value < 0
    assert any("accuracy is expected to change by −" in said.replace("-", "−") for said in sentences(losses))
    assert "accuracy is expected to fall by" in caplog.text
    caplog.clear()
    labels = whole(inputs).argmax(1)
    with_labels = paramtrans.measure_losses(whole, small, inputs, evaluate=[(inputs, labels)])
    assert "expected" not in caplog.text + " ".join(sentences(with_labels))


def test_no_minus_stands_before_a_zero() -> None:
    tiny = Share(value=-1e-5, ci95=(-2e-4, 1e-5))
    costs = Costs(parameters=1, bytes=4)
    accuracy = Accuracy(examples=1, before=tiny, after=tiny, change=tiny)
    for losses in (
        Losses(before=costs, after=costs, expected_change=tiny),
        Losses(before=costs, after=costs, accuracy=accuracy),
    ):
        [sentence] = sentences(losses)
        assert "by +0.0 points (95% interval +0.0 to +0.0)" in sentence


@pytest.mark.parametrize("predicts", ["embedding", "values"])
def test_what_are_no_classes_has_none(predicts: str) -> None:
    whole = network()
    losses = paramtrans.measure_losses(whole, whole, torch.randn(40, 6), predicts=predicts)  # type: ignore[arg-type]
    assert losses.expected_change is None


@pytest.mark.parametrize(
    ("broken", "said"), [("before", "no finite numbers"), ("after", "where the untouched one does not")]
)
def test_outputs_that_are_no_numbers_are_an_error(broken: str, said: str) -> None:
    networks = {"before": network(), "after": network()}
    networks[broken][2].weight.data.fill_(float("nan"))
    with pytest.raises(DataError, match=said):
        paramtrans.measure_losses(networks["before"], networks["after"], torch.randn(40, 6))
