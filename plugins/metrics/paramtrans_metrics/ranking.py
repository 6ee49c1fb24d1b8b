"""How well outputs rank examples of two classes."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from paramtrans.api.metric import Metric


class AUC(Metric):
    """Area under the ROC curve: how often an example of class 1 has a higher output than one of class 0.

    Equal outputs count half (Mann-Whitney). Labels are 0 or 1; of two outputs the second less the first counts, one
    output counts by itself. NaN where all examples are of one class.
    """

    label: ClassVar[str] = "AUC"
    bounds: ClassVar[tuple[float, float] | None] = (0.0, 1.0)
    digits: ClassVar[int] = 3

    def measure(self, outputs: Tensor, labels: Tensor) -> Tensor:
        scores = outputs if outputs.ndim == 2 else outputs[..., -1] - (outputs[..., 0] if outputs.shape[-1] > 1 else 0)
        return torch.stack([scores, labels.expand_as(scores).to(scores)], dim=2)

    def combine(self, numbers: Tensor) -> Tensor:
        return torch.stack([_area(host[:, 0], host[:, 1] > 0) for host in numbers])


def _area(scores: Tensor, positive: Tensor) -> Tensor:
    high, low = scores[positive], scores[~positive].sort().values
    below = torch.searchsorted(low, high) + torch.searchsorted(low, high, right=True)
    return below.double().mean() / (2 * len(low))
