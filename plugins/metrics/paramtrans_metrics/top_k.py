"""Whether a label is among the highest outputs."""

from __future__ import annotations

from typing import ClassVar

from pydantic import PositiveInt
from torch import Tensor

from paramtrans.api.metric import Metric
from paramtrans.api.options import BaseOptions, Trials


class TopKOptions(BaseOptions):
    """How many count."""

    k: PositiveInt = 2
    """The label is to be among this many of the highest outputs; all of them where there are fewer."""


class TopK(Metric):
    """Top-k accuracy in percent, for tasks whose outputs are one number for each class."""

    Options: ClassVar[type[BaseOptions]] = TopKOptions
    options: TopKOptions
    trials: ClassVar[Trials] = ({}, {"k": 1})
    unit: ClassVar[str] = "%"
    bounds: ClassVar[tuple[float, float] | None] = (0.0, 100.0)

    def measure(self, outputs: Tensor, labels: Tensor) -> Tensor:
        highest = outputs.topk(min(self.options.k, outputs.shape[-1]), dim=-1).indices
        return 100.0 * (highest == labels[..., None]).any(-1)
