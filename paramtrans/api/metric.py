"""Metrics: what a task's hosts are measured by, and numbers beside it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

from paramtrans.api.options import BaseOptions, Configurable

if TYPE_CHECKING:
    from torch import Tensor


class Metric(Configurable, ABC):
    """A number for each host: `measure` looks at single examples, `combine` makes one number of all of them."""

    label: ClassVar[str] = ""
    """What tables and messages call it; the component's name by default."""
    unit: ClassVar[str] = ""
    """What stands behind the number, such as `%`."""
    higher_is_better: ClassVar[bool] = True
    """Whether more of it is better; errors and perplexities are better where they are lower."""
    bounds: ClassVar[tuple[float, float] | None] = None
    """The lowest and the highest number there can be, where there are both."""
    digits: ClassVar[int] = 1
    """Decimals that are shown."""

    def __init__(self, options: BaseOptions) -> None:
        self.options = options

    @abstractmethod
    def measure(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """What counts of each example of each host, for `combine`.

        Args:
            outputs: What the hosts give, `[hosts, examples, *outputs]`.
            labels: `[examples, *label]`, as the task's splits have them; the same for all hosts.

        Returns:
            `[hosts, examples]`; `[hosts, examples, ...]` where `combine` takes several numbers of each.
        """

    def combine(self, numbers: Tensor) -> Tensor:
        """The number of a whole set of examples: the mean of what `measure` gave, unless overridden.

        Args:
            numbers: What `measure` gave for all examples, `[hosts, n, ...]`, in double precision.

        Returns:
            `[hosts]`.
        """
        return numbers.mean(1)


class OwnScore(Metric):
    """The `score` of a task that names no metric, in percent."""

    label: ClassVar[str] = "score"
    unit: ClassVar[str] = "%"
    bounds: ClassVar[tuple[float, float] | None] = (0.0, 100.0)

    def __init__(self, score: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__(BaseOptions())
        self.score = score

    def measure(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return self.score(outputs, labels)
