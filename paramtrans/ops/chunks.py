"""Large tensors gone through in pieces, so that what is computed of them needs little memory."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

CHUNK = 2**20
"""Values that are looked at at once."""


def chunks(*tensors: Tensor, size: int = CHUNK) -> Iterator[tuple[Tensor, ...]]:
    """Pieces of tensors with equally many values, each in a row.

    Args:
        tensors: Of one shape, or of as many values.
        size: Values of a piece, at most.

    Yields:
        The piece of each tensor, `[n]`.
    """
    return zip(*(tensor.reshape(-1).split(size) for tensor in tensors), strict=True)


def real_parts(tensor: Tensor) -> Tensor:
    """A tensor of real numbers: itself, or the real and the imaginary parts of complex ones, `[..., 2]`."""
    return torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor
