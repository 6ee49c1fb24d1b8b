"""Augmenters: random changes of parameters while a translator is trained."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from paramtrans.api.options import BaseOptions, Configurable
from paramtrans.api.specs import BlockSpec

if TYPE_CHECKING:
    import torch

    from paramtrans.api.stacking import Params


class Augmenter(Configurable, ABC):
    """A random change of parameters during translator training; it never changes its input in place."""

    def __init__(self, options: BaseOptions) -> None:
        self.options = options

    @abstractmethod
    def __call__(self, params: Params, generator: torch.Generator) -> Params:
        """Change parameters at random.

        Args:
            params: Stacked parameters, each `[models, *shape]`; they are not changed in place.
            generator: Where all randomness comes from.

        Returns:
            The same names and shapes.
        """

    def change(self, params: Params, spec: BlockSpec, generator: torch.Generator) -> Params:
        """What training calls: `self(params, generator)`, unless it matters what the values are.

        Args:
            params: Stacked tensors of `spec`.
            spec: That of the target block, or of what is read of the source.
            generator: Where all randomness comes from.

        Returns:
            The same names and shapes.
        """
        return self(params, generator)
