"""Parameters against parameters: the paper's loss (KT, Eq. 1), and its minimum over the order of hidden units."""

from __future__ import annotations

from typing import ClassVar

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn.functional import mse_loss

from paramtrans.api.objective import Batch, Objective
from paramtrans.api.options import BaseOptions, Trials
from paramtrans.api.specs import BlockSpec, SymmetryGroup
from paramtrans.api.stacking import Params
from paramtrans.errors import TrainingError
from paramtrans.ops import symmetry


class MSEOptions(BaseOptions):
    """How the block's tensors are weighed against each other."""

    normalise: bool = False
    """Whether each tensor's error counts relative to that tensor's variance over the batch, so that small weights are
    learned as well as large ones. The paper does not."""


class MSE(Objective):
    """Mean over the block's tensors of their mean squared error to the trained target's."""

    Options: ClassVar[type[BaseOptions]] = MSEOptions
    options: MSEOptions
    trials: ClassVar[Trials] = ({}, {"normalise": True})
    needs_targets: ClassVar[bool] = True

    def __call__(self, predicted: Params, batch: Batch) -> Tensor:
        if batch.target is None:
            raise TrainingError("objective mse: the training hosts have no trained targets; set zoo.pairs to zoo.train")
        errors = [self._error(predicted[name], target) for name, target in batch.target.items()]
        return torch.stack(errors).mean()

    def _error(self, predicted: Tensor, target: Tensor) -> Tensor:
        error = mse_loss(predicted, target)
        return error / target.var(correction=0).clamp_min(1e-8) if self.options.normalise else error


class MatchingMSE(MSE):
    """The same, for the order of the target's hidden units that makes it smallest, found for each model by itself.

    A linear assignment of units, as in the weight matching of Git Re-Basin (Ainsworth et al., 2023, arXiv 2209.04836).
    Groups of units are ordered one after the other, which is exact where no tensor runs over two of them.
    """

    def __call__(self, predicted: Params, batch: Batch) -> Tensor:
        if batch.target is None:
            return super().__call__(predicted, batch)
        spec = self.runner.target_spec
        return super().__call__(predicted, Batch(batch.hosts, aligned(batch.target, predicted, spec), None, None))


@torch.no_grad()
def aligned(params: Params, like: Params, spec: BlockSpec) -> Params:
    """The same blocks with their hidden units in the order, and with the signs, that are nearest to those of others.

    Model by model; signs change where the block's units may change theirs.

    Args:
        params: Stacked blocks, each `[models, *shape]`; they are not changed.
        like: Those that are to be met, stacked alike.
        spec: It says which units may be permuted, and may change their sign.
    """
    for group in spec.symmetries:
        apart, apart_with_other_sign = _costs(params, like, group)
        costs = torch.minimum(apart, apart_with_other_sign)
        orders = [torch.as_tensor(linear_sum_assignment(cost)[1]) for cost in costs.cpu().numpy()]
        order = torch.stack(orders).to(costs.device)
        params = symmetry.permute(params, group, order)
        if group.signs:
            gained = (apart - apart_with_other_sign).gather(2, order[..., None])[..., 0]
            params = symmetry.flip(params, group, torch.where(gained > 0, -1.0, 1.0))
    return params


def _costs(params: Params, like: Params, group: SymmetryGroup) -> tuple[Tensor, Tensor]:
    """Squared distances of units as they are and with the other sign: `[models, wanted units, units]` each."""
    same, other = (units(params, group, sign) for sign in (1, -1 if group.signs else 1))
    wanted = units(like, group)
    return torch.cdist(wanted, same).square(), torch.cdist(wanted, other).square()


def units(params: Params, group: SymmetryGroup, sign: int = 1) -> Tensor:
    """All that belongs to each unit, whose values may lie side by side on an axis: `[models, units, values]`.

    Args:
        params: Stacked blocks, each `[models, *shape]`.
        group: The units.
        sign: -1 for what they are with the other sign.
    """
    signed = [params[m.tensor].detach().movedim(m.axis + 1, 1) * sign**m.scale for m in group.members]
    return torch.cat([tensor.reshape(len(tensor), group.size, -1) for tensor in signed], dim=2)
