"""How far what some blocks or networks compute is from what others do, model by model."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import kl_div, log_softmax


def relative_error(found: Tensor, wanted: Tensor) -> Tensor:
    """Mean squared error of each model over the variance of its wanted values: `[models, ...]` → `[models]`."""
    error = (found - wanted).flatten(1).square().mean(1)
    return error / wanted.flatten(1).var(1, correction=0).clamp_min(1e-8)


def divergence(found: Tensor, wanted: Tensor) -> Tensor:
    """KL divergence of each model from the wanted output probabilities: logits `[models, n, classes]` → `[models]`."""
    logs = (log_softmax(found, -1), log_softmax(wanted, -1))
    return kl_div(*logs, reduction="none", log_target=True).sum(-1).mean(1)
