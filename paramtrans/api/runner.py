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
        """Inputs `[models, batch, ...]` → outputs `[models, batch, ...]`, differentiable in both arguments.

        While `training`, normalisation uses each model's own batch and updates its running statistics in `params`
        in place, as the module itself would.
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
        """Whole hosts with the source or target block, where one layout runs all of them: that saves the ways in and
        out between the parts. Parameters are joined as `former.*`, `block.*` and `latter.*`."""
        ...
