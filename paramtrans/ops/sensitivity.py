"""How much the outputs of a network depend on each feature that enters its latter blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from paramtrans.api.runner import Stacked
    from paramtrans.api.stacking import Params

DRAWS = 8
"""Random directions of the outputs that are looked along; the mean over them is unbiased."""
MOST = 64
"""Features looked at, at most, for each model."""


def sensitivity(latter: Stacked, params: Params, features: Tensor) -> Tensor:
    """Mean square of the outputs' derivative by each feature, scaled to mean 1 in each model.

    For outputs f and features x this is the diagonal of JᵀJ, J = ∂f/∂x: the Gauss-Newton matrix, whose diagonal weighs
    parameters in Optimal Brain Damage (LeCun et al., 1989). It is estimated as the mean of (Jᵀs)² over vectors s of
    random signs (Hutchinson, 1990). Where a latter block strides over positions, these get 0: nothing that is wrong
    there does harm.

    Args:
        latter: Runs the latter blocks.
        params: Their stacked parameters, each `[models, *shape]`.
        features: What enters them, `[models, n, *slot]`; the first `MOST` are looked at.

    Returns:
        `[models, *slot]`, outside any graph.
    """
    generator = torch.Generator().manual_seed(0)
    squares = torch.zeros_like(features[:, 0])
    for _ in range(DRAWS):
        with torch.enable_grad():
            entering = features[:, :MOST].detach().requires_grad_()
            outputs = latter({name: tensor.detach() for name, tensor in params.items()}, entering)
            signs = torch.randint(0, 2, outputs.shape[2:], generator=generator).to(outputs) * 2 - 1
            (gradient,) = torch.autograd.grad((outputs * signs).sum(), entering)
        squares += gradient.square().mean(1)
    return squares / squares.flatten(1).mean(1).clamp_min(1e-12).view(-1, *[1] * (squares.ndim - 1))
