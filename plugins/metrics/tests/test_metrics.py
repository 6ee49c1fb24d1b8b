"""Metrics of whole sets of examples, held to their definitions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from paramtrans.api.metric import Metric
from paramtrans.plugins import components

HOSTS, EXAMPLES, TOKENS, CLASSES = 2, 30, 5, 4


def made(name: str, **options: Any) -> Metric:
    metric: Metric = components().create("metric", name, **options)
    return metric


def whole(metric: Metric, outputs: Tensor, labels: Tensor) -> Tensor:
    """The metric of all examples, measured in two pieces."""
    pieces = [slice(0, 11), slice(11, None)]
    numbers = [metric.measure(outputs[:, piece], labels[piece]) for piece in pieces]
    return metric.combine(torch.cat(numbers, dim=1).double())


@pytest.fixture
def tokens() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    outputs = torch.randn(HOSTS, EXAMPLES, TOKENS, CLASSES, generator=generator)
    labels = torch.randint(CLASSES, (EXAMPLES, TOKENS), generator=generator)
    labels[torch.rand(EXAMPLES, TOKENS, generator=generator) < 0.3] = -100
    return outputs, labels


def test_perplexity_is_that_of_the_mean_over_all_tokens_that_count(tokens: tuple[Tensor, Tensor]) -> None:
    outputs, labels = tokens
    wanted = [cross_entropy(host.flatten(0, 1).double(), labels.flatten(), ignore_index=-100).exp() for host in outputs]
    metric = made("perplexity", ignore=-100)
    torch.testing.assert_close(whole(metric, outputs, labels), torch.stack(wanted), rtol=1e-5, atol=0)
    assert not metric.higher_is_better


def test_token_accuracy_is_that_of_the_tokens_that_count(tokens: tuple[Tensor, Tensor]) -> None:
    outputs, labels = tokens
    wanted = [100 * (host.argmax(-1) == labels)[labels >= 0].double().mean() for host in outputs]
    torch.testing.assert_close(whole(made("token_accuracy", ignore=-100), outputs, labels), torch.stack(wanted))


def test_r2_is_one_at_the_labels_and_none_at_their_mean() -> None:
    labels = torch.randn(EXAMPLES, 2, generator=torch.Generator().manual_seed(1))
    outputs = torch.stack([labels, labels.mean(0).expand_as(labels), 2 * labels - labels.mean(0)])
    torch.testing.assert_close(whole(made("r2"), outputs, labels), torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64))


@pytest.mark.parametrize("shape", [(), (1,)])
def test_r2_takes_one_value_of_an_example_with_and_without_an_axis(shape: tuple[int, ...]) -> None:
    labels = torch.randn(EXAMPLES, generator=torch.Generator().manual_seed(1))
    outputs = (labels + 0.5).expand(HOSTS, -1)
    wanted = 1 - 0.25 / labels.var(correction=0).double()
    values = whole(made("r2"), outputs.reshape(HOSTS, EXAMPLES, *shape), labels)
    torch.testing.assert_close(values, wanted.expand(HOSTS), rtol=1e-5, atol=0)


def test_auc_counts_pairs_in_the_right_order_and_ties_by_half() -> None:
    labels = torch.tensor([0, 1, 0, 1, 1] * 6)
    scores = torch.randint(4, (HOSTS, EXAMPLES), generator=torch.Generator().manual_seed(1)).float()
    pairs = scores[:, labels == 1, None] - scores[:, None, labels == 0]
    wanted = ((pairs > 0).double() + 0.5 * (pairs == 0)).mean((1, 2))
    for outputs in (scores, scores[..., None], torch.stack([-scores, scores], dim=2)):
        torch.testing.assert_close(whole(made("auc"), outputs, labels), wanted)
