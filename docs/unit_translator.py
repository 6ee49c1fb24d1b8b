"""A translator of units: for any network that `torch.export` can follow, whatever its layers are called."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from paramtrans import BaseOptions, Context, Params, SpecMismatch, Translator, UnitCase, UnitPiece


class Busiest(Translator):
    """Keeps the units that vary most; then shifts what reads them, so that its mean is what it was."""

    keeps_units: ClassVar[bool] = True
    needs_probes: ClassVar[bool] = True  # so that `case.readings` are there
    adjusts_units: ClassVar[bool] = True

    @classmethod
    def keep(cls, options: BaseOptions, case: UnitCase) -> Tensor:
        # `gram` is of all values of the units, as many of each: a convolution reads several of one unit.
        varying = torch.stack([reading.gram.diagonal().view(len(case), -1).sum(1) for reading in case.readings])
        return case.best(varying.sum(0))

    @classmethod
    def adjust(cls, options: BaseOptions, piece: UnitPiece) -> Mapping[str, Tensor]:
        # `run` is the piece of the smaller network around the group, with other tensors in place of its own.
        params = {name: tensor.clone().requires_grad_(name.endswith("bias")) for name, tensor in piece.params.items()}
        for entered, wanted in piece.batches:
            pairs = zip(piece.run(params, entered), wanted, strict=True)
            loss: Any = sum((written.mean(0) - wanted.mean(0)).square().sum() for written, wanted in pairs)
            if loss.requires_grad:
                loss.backward()
        return {name: tensor.detach() - 0.1 * tensor.grad for name, tensor in params.items() if tensor.grad is not None}

    def translate(self, source: Params, context: Context | None = None) -> Params:
        raise SpecMismatch('works on units of networks, not on blocks; give by="units"')
