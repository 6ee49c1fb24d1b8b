"""What runs many models at once, as plugins see it: a stack of one module, and the hosts of a task part by part."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from paramtrans.api.specs import BlockSpec
    from paramtrans.api.stacking import Params
    from paramtrans.api.task import Task


class Stacked(Protocol):
    """Many models of one architecture, run as one."""

    def __call__(self, params: Params, inputs: Tensor, training: bool = False) -> Tensor:
        """Run all models, each on inputs of its own; differentiable in both arguments.

        Args:
            params: Stacked parameters and statistics, each `[models, *shape]`.
            inputs: `[models, batch, ...]`.
            training: Whether normalisation uses each model's own batch, and updates its running statistics in `params`
                in place, as the module itself would.

        Returns:
            `[models, batch, ...]`.
        """
        ...


class Runner(Protocol):
    """Runs the hosts of one task part by part: `former`, `source` or `target` block, `latter`, each stacked."""

    task: Task
    target_spec: BlockSpec
    former: Stacked
    source: Stacked
    target: Stacked
    latter: Stacked

    def in_one_piece(self, block: Stacked) -> Stacked | None:
        """Whole hosts, where one layout runs all of them: that saves the ways in and out between the parts.

        Args:
            block: `source` or `target` of this runner.

        Returns:
            What runs parameters joined as `former.*`, `block.*` and `latter.*`; None where no layout runs all.
        """
        ...
