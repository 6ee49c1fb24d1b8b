"""Adam on tensors of any precision."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from paramtrans.utils.precision import HALF, widened

SMALLEST = 0.01
"""Tensors with a smaller root mean square, such as biases of zero, are changed as if it were this."""


class ExactAdam:
    """Adam (Kingma and Ba, 2015, arXiv 1412.6980) whose steps are in float32 where tensors are in half precision.

    In float16 its squared gradients are lost, and with them all that a step divides by.
    """

    def __init__(self, tensors: Sequence[nn.Parameter], rate: float, steps: int) -> None:
        """Steps that are yet to be taken.

        Args:
            tensors: Are changed by `step`.
            rate: At the start, in root mean squares of each tensor; it falls to zero along a cosine.
            steps: How many there will be.
        """
        self.tensors = tensors
        self.exact = [nn.Parameter(widened(tensor.detach())) if tensor.dtype in HALF else tensor for tensor in tensors]
        sizes = [max(float(tensor.detach().square().mean().sqrt()), SMALLEST) for tensor in self.exact]
        groups = [{"params": [tensor], "lr": rate * size} for tensor, size in zip(self.exact, sizes, strict=True)]
        self.adam = torch.optim.Adam(groups)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.adam, max(1, steps))

    def step(self, loss: Tensor) -> None:
        """One step down.

        Args:
            loss: A scalar, computed from the tensors.
        """
        for tensor in self.tensors:
            tensor.grad = None
        loss.backward()
        for tensor, exact in zip(self.tensors, self.exact, strict=True):
            exact.grad = None if tensor.grad is None else widened(tensor.grad)
        nn.utils.clip_grad_norm_(self.exact, 1.0)
        self.adam.step()
        self.schedule.step()
        with torch.no_grad():
            for tensor, exact in zip(self.tensors, self.exact, strict=True):
                if exact is not tensor:
                    tensor.copy_(exact)
