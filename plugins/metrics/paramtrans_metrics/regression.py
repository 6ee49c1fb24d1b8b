"""How near outputs come to the values that were to be met."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from paramtrans.api.metric import Metric


class R2(Metric):
    """R², the share of the labels' variance that outputs explain; below 0 where their mean alone does better.

    Of several values of an example it is the mean of each one's. Outputs `[hosts, examples, *values]`, labels
    `[examples, *values]`; a last axis of one may be left out of either.
    """

    label: ClassVar[str] = "R²"
    digits: ClassVar[int] = 3

    def measure(self, outputs: Tensor, labels: Tensor) -> Tensor:
        given = outputs.flatten(2) if outputs.ndim > 2 else outputs[..., None]
        wanted = labels.flatten(1) if labels.ndim > 1 else labels[:, None]
        return torch.stack([(given - wanted).square(), wanted.expand_as(given)], dim=2)

    def combine(self, numbers: Tensor) -> Tensor:
        errors, wanted = numbers.unbind(2)
        return (1 - errors.mean(1) / wanted.var(1, correction=0)).mean(1)
