"""The change of accuracy that is to be expected of a smaller network, from its outputs alone, without labels."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

from torch import Tensor

from paramtrans.ops.statistics import NORMAL, Estimate, paired_change

ROUNDING = 1e-3
"""How far the sum of probabilities may be from one."""


def probabilities(scores: Tensor) -> Tensor:
    """Class probabilities, on axis 1: the scores' softmax, or the scores where they are probabilities already.

    Args:
        scores: `[examples, classes, ...]`.
    """
    scores = scores.double()
    are_probabilities = bool((scores >= 0).all()) and bool(((scores.sum(1) - 1).abs() < ROUNDING).all())
    return scores if are_probabilities else scores.softmax(1)


@dataclass
class ExpectedChange:
    """Probability that an untouched network gives to the classes that a smaller one says, less that of its own classes.

    Where the untouched network's probabilities are calibrated, the mean is the change of accuracy that is to be
    expected. Of one that is too sure of itself more is said to be lost than is, at most the share of predictions that
    changed.
    """

    examples: int = 0
    total: float = 0.0
    squares: float = 0.0

    def add(self, before: Tensor, after: Tensor) -> None:
        """Count further examples.

        Args:
            before: Scores of the untouched network, `[examples, classes, ...]`; the mean over further axes counts.
            after: Those of the smaller one, of the same shape.
        """
        of_classes = probabilities(before)
        classes = (scores.argmax(1, keepdim=True) for scores in (after, before))
        said, unchanged = (of_classes.gather(1, chosen) for chosen in classes)
        changes = (said - unchanged).flatten(1).mean(1)
        self.examples += len(changes)
        self.total += float(changes.sum())
        self.squares += float(changes.square().sum())

    def estimate(self) -> Estimate | None:
        """The mean, a share, with its 95% interval over examples; None of fewer than two, and where it is no number."""
        if self.examples < 2 or not isfinite(self.squares):
            return None
        mean = self.total / self.examples
        variance = max(0.0, self.squares - self.examples * mean**2) / (self.examples - 1)
        spread = NORMAL * (variance / self.examples) ** 0.5
        if not self.squares:  # no prediction changed, of so many; of more, some may
            return Estimate(mean, paired_change(0, 0, self.examples).ci95)
        return Estimate(mean, (mean - spread, mean + spread))
