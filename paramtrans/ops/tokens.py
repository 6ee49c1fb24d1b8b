"""Blocks as sequences of tokens, and back, bit for bit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from paramtrans.api.specs import TensorSpec

if TYPE_CHECKING:
    from torch import Tensor

    from paramtrans.api.stacking import Params


class TokenLayout:
    """Where each value of a block stands in `[models, count, width]` tokens.

    Matrices and kernels come first and vectors (biases, normalisation) behind them, all concatenated and cut every
    `width` values, so that a convolution's kernels stay whole tokens when biases are added. The last token is padded
    with zeros. With the paper's blocks and width 9: 72 tokens for the source's two convolutions, 36 for the conv
    target, 18 for the MLP and 16 for attention.

    >>> TokenLayout([TensorSpec("w", (6, 3, 3, 3)), TensorSpec("b", (6,))], width=9).count
    19
    """

    def __init__(self, tensors: Sequence[TensorSpec], width: int) -> None:
        self.width = width
        self.tensors = tuple(sorted(tensors, key=lambda tensor: len(tensor.shape) <= 1))
        self.numel = sum(tensor.numel for tensor in tensors)
        self.count = math.ceil(self.numel / width)
        self._names = tuple(tensor.name for tensor in tensors)

    def pack(self, params: Params) -> Tensor:
        """Stacked parameters → tokens `[models, count, width]`."""
        import torch
        from torch.nn.functional import pad

        stacks = [params[tensor.name] for tensor in self.tensors]
        flat = torch.cat([stack.reshape(len(stack), -1) for stack in stacks], dim=1)
        padded = pad(flat, (0, self.count * self.width - self.numel))
        return padded.reshape(-1, self.count, self.width)

    def unpack(self, tokens: Tensor) -> Params:
        """The inverse of `pack`.

        Args:
            tokens: `[models, count, width]`.

        Returns:
            Stacked parameters, in the order the tensors were given.
        """
        pieces = tokens.flatten(1)[:, : self.numel].split([tensor.numel for tensor in self.tensors], dim=1)
        params = {t.name: piece.reshape(-1, *t.shape) for t, piece in zip(self.tensors, pieces, strict=True)}
        return {name: params[name] for name in self._names}
