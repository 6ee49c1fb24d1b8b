"""How many tokens a language model wavers between."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from paramtrans.api.metric import Metric
from paramtrans.api.options import BaseOptions, Trials
from paramtrans_metrics.accuracy import TokenOptions, summed


class Perplexity(Metric):
    """Exponential of the mean negative log-likelihood over all tokens of all examples; lower is better.

    Outputs `[hosts, examples, *tokens, classes]`, labels `[examples, *tokens]`.
    """

    Options: ClassVar[type[BaseOptions]] = TokenOptions
    options: TokenOptions
    trials: ClassVar[Trials] = ({}, {"ignore": 0})
    higher_is_better: ClassVar[bool] = False
    digits: ClassVar[int] = 2

    def measure(self, outputs: Tensor, labels: Tensor) -> Tensor:
        counts = self.options.counts(labels)
        wanted = torch.where(counts, labels, 0).expand(outputs.shape[:-1])
        losses = -log_softmax(outputs, -1).gather(-1, wanted[..., None])[..., 0] * counts
        return torch.stack([summed(losses), summed(counts.expand(losses.shape))], dim=2)

    def combine(self, numbers: Tensor) -> Tensor:
        losses, counts = numbers.sum(1).unbind(1)
        return torch.exp(losses / counts)
