"""Other parameters, same function: hidden units in another order, and rescaled."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import NonNegativeFloat

from paramtrans.api.augmenter import Augmenter
from paramtrans.api.options import BaseOptions
from paramtrans.api.specs import BlockSpec
from paramtrans.api.stacking import Params
from paramtrans.errors import SpecMismatch
from paramtrans.ops.symmetry import random_orbit


class OrbitOptions(BaseOptions):
    """How far along the orbit."""

    spread: NonNegativeFloat = 0.5
    """Units are rescaled by exp(spread · N(0, 1)) where the block allows it; 0: they are permuted alone."""


class Orbit(Augmenter):
    """Permutes and rescales the hidden units that the block's adapter declares; the block computes what it did.

    A random point of the orbit under the block's symmetries (`paramtrans.ops.symmetry.random_orbit`).
    """

    Options: ClassVar[type[BaseOptions]] = OrbitOptions
    options: OrbitOptions

    def __call__(self, params: Params, generator: torch.Generator) -> Params:
        raise SpecMismatch("orbit has to know the block's symmetries; call its method change, with the block's spec")

    def change(self, params: Params, spec: BlockSpec, generator: torch.Generator) -> Params:
        return random_orbit(params, spec, generator, self.options.spread)
