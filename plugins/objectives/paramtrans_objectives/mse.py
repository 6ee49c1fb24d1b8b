"""The paper's loss: parameters against parameters (KT, Eq. 1)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from paramtrans.errors import TrainingError
from paramtrans.hosts import Params
from paramtrans.protocols import Batch, Objective


class MSE(Objective):
    """Mean over the block's tensors of their mean squared error to the trained target's."""

    needs_targets: ClassVar[bool] = True

    def __call__(self, predicted: Params, batch: Batch) -> Tensor:
        if batch.target is None:
            raise TrainingError("objective mse: the training hosts have no trained targets; set zoo.pairs to zoo.train")
        return torch.stack([mse_loss(predicted[name], target) for name, target in batch.target.items()]).mean()
