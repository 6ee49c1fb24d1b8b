"""Metrics: numbers beside a task's own score."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

from paramtrans.api.options import BaseOptions, Configurable

if TYPE_CHECKING:
    from torch import Tensor


class Metric(Configurable, ABC):
    """A number for each example, whose mean is reported for every method, as the task's own score is."""

    unit: ClassVar[str] = ""
    """What stands behind the number, such as `%`."""

    def __init__(self, options: BaseOptions) -> None:
        self.options = options

    @abstractmethod
    def measure(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """One number for each host and example.

        Args:
            outputs: What the hosts give, `[hosts, examples, *outputs]`.
            labels: `[examples, *label]`, as the task's splits have them.

        Returns:
            `[hosts, examples]`.
        """
