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
    """The same blocks with their hidden units in the order that is nearest to those of others, model by model.

    Args:
        params: Stacked blocks, each `[models, *shape]`; they are not changed.
        like: Those that are to be met, stacked alike.
        spec: It says which units may be permuted.
    """
    for group in spec.symmetries:
        units, wanted = (_units(blocks, group) for blocks in (params, like))
        orders = [linear_sum_assignment(cost)[1] for cost in torch.cdist(wanted, units).square().cpu().numpy()]
        params = symmetry.permute(params, group, torch.stack([torch.as_tensor(order) for order in orders]))
    return params


def _units(params: Params, group: SymmetryGroup) -> Tensor:
    """All that belongs to each unit, whose values may lie side by side on an axis: `[models, units, values]`."""
    stacks = [params[member.tensor].detach().movedim(member.axis + 1, 1) for member in group.members]
    return torch.cat([stack.reshape(len(stack), group.size, -1) for stack in stacks], dim=2)
