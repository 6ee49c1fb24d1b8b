"""Half precision: what it is, and numbers in one in which squares have room."""

from __future__ import annotations

import torch
from torch import Tensor

HALF = (torch.float16, torch.bfloat16)
"""In float16 squares of 256 and more are infinite, and small ones zero; bfloat16 has three digits."""


def widened(tensor: Tensor) -> Tensor:
    """The same values in float32 where they are in half precision; any other tensor as it is."""
    return tensor.float() if tensor.dtype in HALF else tensor
