"""Folding a BatchNorm that follows a convolution into the convolution."""

from __future__ import annotations

import torch
from torch import Tensor

from paramtrans.api.stacking import Params

EPS = 1e-5
"""PyTorch's default for BatchNorm, which the adapters here keep."""


def fold(weight: Tensor, norm: Params, eps: float = EPS) -> tuple[Tensor, Tensor]:
    """The convolution that equals a convolution followed by BatchNorm in eval mode.

    Source: Jacob et al., 2018, arXiv 1712.05877, Eq. 14.

    Args:
        weight: `[models, out, in, *kernel]`.
        norm: `weight`, `bias`, `running_mean` and `running_var`, each `[models, out]`.
        eps: Of the BatchNorm.

    Returns:
        Weight `[models, out, in, *kernel]` and bias `[models, out]`.
    """
    gain = norm["weight"] / torch.sqrt(norm["running_var"] + eps)
    return weight * gain[..., None, None, None], norm["bias"] - norm["running_mean"] * gain
