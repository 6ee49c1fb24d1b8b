"""Quantisation: the source block itself, its weights rounded to a few bits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from paramtrans.api.adapter import BlockAdapter
from paramtrans.api.context import Context
from paramtrans.api.options import BaseOptions, Trials
from paramtrans.api.specs import TensorKind
from paramtrans.api.stacking import Params
from paramtrans.api.translator import Translator
from paramtrans.api.units import UnitPiece
from paramtrans.errors import SpecMismatch


class QuantiseOptions(BaseOptions):
    """How coarse the weights become."""

    bits: int = Field(8, ge=2, le=16)
    """Bits of a weight."""


class Quantise(Translator):
    """The source's own tensors, each output channel's weights rounded to the nearest of 2^bits - 1 even steps about 0.

    What is written are the rounded values in float; biases and normalisation stay as they are. Of units of any network
    the layers that write and read them are rounded.
    """

    Options: ClassVar[type[BaseOptions]] = QuantiseOptions
    options: QuantiseOptions
    trials: ClassVar[Trials] = ({}, {"bits": 4})
    narrows: ClassVar[bool] = False
    adjusts_units: ClassVar[bool] = True

    def __init__(self, options: QuantiseOptions, source: BlockAdapter, target: BlockAdapter) -> None:
        super().__init__(options, source, target)
        if source.spec.tensors != target.spec.tensors:
            raise SpecMismatch("rounds the source block itself; make the target the same block (ratio 1)")

    @property
    def target_bytes(self) -> int:
        """Bytes of weights at this many bits, with a scale for each output channel, and of all other tensors."""
        weights = [tensor for tensor in self.target.spec.tensors if tensor.kind is TensorKind.WEIGHT]
        values, scales = sum(tensor.numel for tensor in weights), sum(tensor.shape[0] for tensor in weights)
        return -(-values * self.options.bits // 8) + 4 * (self.target.spec.numel - values + scales)

    @classmethod
    def adjust(cls, options: BaseOptions, piece: UnitPiece) -> Mapping[str, Tensor]:
        assert isinstance(options, QuantiseOptions)
        weights = {name: tensor for name, tensor in piece.params.items() if tensor.ndim > 1}
        return {name: rounded(tensor[None], options.bits)[0] for name, tensor in weights.items()}

    def translate(self, source: Params, context: Context | None = None) -> Params:
        weights = {tensor.name for tensor in self.target.spec.tensors if tensor.kind is TensorKind.WEIGHT}
        return {
            name: rounded(source[name], self.options.bits) if name in weights else source[name].clone()
            for name in self.target.spec.names
        }


def rounded(weight: Tensor, bits: int) -> Tensor:
    """Weights rounded to even steps about 0, up to the largest of each output channel.

    Args:
        weight: `[models, out, ...]`.
        bits: 2^bits - 1 steps.

    Returns:
        Of the same shape.
    """
    rows = weight.reshape(*weight.shape[:2], -1)
    step = rows.abs().amax(2, keepdim=True).clamp_min(torch.finfo(rows.dtype).tiny) / (2 ** (bits - 1) - 1)
    on_steps: Tensor = (rows / step).round() * step
    return on_steps.view_as(weight)
