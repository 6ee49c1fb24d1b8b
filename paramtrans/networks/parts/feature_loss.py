"""How far a block is from making of what reaches it what is to leave it."""

from __future__ import annotations

from torch import Tensor, nn

from paramtrans.networks.forward.examples import Examples
from paramtrans.networks.parts.fitting import Fitted, Fitting, fit, reported_error
from paramtrans.networks.parts.weights import spread
from paramtrans.ops.distances import Variance
from paramtrans.utils.precision import widened


class FeatureLoss:
    """Squared error of a block's features, relative to the variance of those that left the part."""

    def __init__(
        self, block: nn.Module, reached: list[Tensor], leaving: list[Tensor], weights: Tensor | None = None
    ) -> None:
        """The loss of one block.

        Args:
            block: Is to make of what reaches it what is to leave it.
            reached: Features, `[n, ...]` for each batch.
            leaving: What is wanted of these, `[n, ...]` for each batch.
            weights: What each value counts, `[1, *features]`, 1 on the mean; None: all alike.
        """
        self.block, self.reached, self.leaving = block, reached, leaving
        self.weights = None if weights is None else spread(weights, leaving)
        variance = Variance()
        for features in leaving:
            variance.add(features)
        self.scale = variance.scale

    def fit(self, examples: Examples, settings: Fitting) -> Fitted:
        """Change the block's parameters by optimiser steps.

        Args:
            examples: The batches that the features are of.
            settings: Steps, learning rate and so on.

        Returns:
            Relative errors, in which all values count alike.
        """
        return fit(list(self.block.parameters()), self.weighed, examples, settings, error_of=self.plain)

    def error(self, examples: Examples) -> float:
        """The relative error as the block is now, on the examples kept aside.

        Args:
            examples: The batches that the features are of.
        """
        return reported_error(self.plain, examples)

    def weighed(self, number: int, examples: Tensor) -> Tensor:
        """Of some examples of a batch, with the weights."""
        squares = self._squares(number, examples)
        return (squares if self.weights is None else squares * self.weights).mean() / self.scale

    def plain(self, number: int, examples: Tensor) -> Tensor:
        """The same without."""
        return self._squares(number, examples).mean() / self.scale

    def _squares(self, number: int, examples: Tensor) -> Tensor:
        features: Tensor = self.block(self.reached[number][examples])
        return (widened(features) - widened(self.leaving[number][examples])).square()
