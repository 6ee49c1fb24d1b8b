"""Objectives: what a translator is trained on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from paramtrans.api.options import BaseOptions, Configurable

if TYPE_CHECKING:
    from torch import Tensor

    from paramtrans.api.hosts import Hosts
    from paramtrans.api.runner import Runner
    from paramtrans.api.stacking import Params


@dataclass(frozen=True)
class Batch:
    """What an objective may look at in one training step, beside the prediction: hosts, and examples for each."""

    hosts: Hosts
    target: Params | None
    """The trained targets, augmented where the config says so; None where step 2 was not run."""
    inputs: Tensor | None
    """Network inputs `[models, batch, ...]`; None unless an objective asks by `examples`."""
    labels: Tensor | None


class Objective(Configurable, ABC):
    """What a translator is trained on."""

    needs_targets: ClassVar[bool] = False
    """Whether it compares with trained targets, and so needs step 2 on the training hosts."""

    def __init__(self, options: BaseOptions, runner: Runner) -> None:
        self.options, self.runner = options, runner

    @property
    def examples(self) -> int:
        """Examples it wants for each host in a step; 0 for none."""
        return 0

    @abstractmethod
    def __call__(self, predicted: Params, batch: Batch) -> Tensor:
        """The loss of predicted target blocks.

        It must be a mean over the models, so that a step may be computed in slices, and by several processes.

        Args:
            predicted: Stacked tensors of the target's spec, each `[models, *shape]`, with a gradient.
            batch: Hosts, trained targets and examples, as far as the objective asks for them.

        Returns:
            A scalar to be minimised.

        Raises:
            TrainingError: the batch lacks what it compares with.
        """
