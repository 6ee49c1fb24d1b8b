"""Whether the highest output is that of the label: for examples, and for each token of them."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from paramtrans.api.metric import Metric
from paramtrans.api.options import BaseOptions, Trials


class Accuracy(Metric):
    """How often the highest output is that of the label, in percent."""

    unit: ClassVar[str] = "%"
    bounds: ClassVar[tuple[float, float] | None] = (0.0, 100.0)

    def measure(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return 100.0 * (outputs.argmax(-1) == labels)


class TokenOptions(BaseOptions):
    """Which tokens count."""

    ignore: int | None = None
    """The label of tokens that do not count, such as -100 for padding; all count by default."""

    def counts(self, labels: Tensor) -> Tensor:
        """Which tokens count, of the shape of the labels."""
        return torch.ones_like(labels, dtype=torch.bool) if self.ignore is None else labels != self.ignore


class TokenAccuracy(Accuracy):
    """How often the highest output is that of the label, over all tokens of all examples, in percent.

    Outputs `[hosts, examples, *tokens, classes]`, labels `[examples, *tokens]`.
    """

    Options: ClassVar[type[BaseOptions]] = TokenOptions
    options: TokenOptions
    trials: ClassVar[Trials] = ({}, {"ignore": 0})

    def measure(self, outputs: Tensor, labels: Tensor) -> Tensor:
        counts = self.options.counts(labels).expand(outputs.shape[:-1])
        right = counts & (outputs.argmax(-1) == labels)
        return torch.stack([summed(right), summed(counts)], dim=2)

    def combine(self, numbers: Tensor) -> Tensor:
        right, counts = numbers.sum(1).unbind(1)
        return 100.0 * right / counts


def summed(tokens: Tensor) -> Tensor:
    """Sums over the tokens of each example: `[hosts, examples, *tokens]` → `[hosts, examples]`."""
    return tokens.reshape(*tokens.shape[:2], -1).sum(2)
