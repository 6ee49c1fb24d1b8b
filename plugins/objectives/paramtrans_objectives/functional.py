"""The functional objective: the predicted block is judged by what comes out between the frozen former and latter."""

from __future__ import annotations

from typing import ClassVar, Self

import torch
from pydantic import NonNegativeFloat, PositiveInt, model_validator
from torch import Tensor

from paramtrans.api.objective import Batch, Objective
from paramtrans.api.options import BaseOptions, Trials
from paramtrans.api.stacking import Params
from paramtrans.errors import TrainingError
from paramtrans.ops.distances import divergence, relative_error


class FunctionalOptions(BaseOptions):
    """Shares of the three comparisons, and how many examples each host is judged on."""

    features: NonNegativeFloat = 1.0
    """Squared error to the source block's output features, relative to their variance in each host."""
    outputs: NonNegativeFloat = 0.0
    """Kullback-Leibler divergence from the source network's output probabilities."""
    task: NonNegativeFloat = 0.0
    """The task's own loss, with labels."""
    examples: PositiveInt = 32
    """Training examples for each host in a step."""

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not (self.features or self.outputs or self.task):
            raise ValueError("features, outputs and task are all 0; give one of them a share")
        return self


class Functional(Objective):
    """What a predicted block does in its host: relative error of features, divergence of outputs, the task's loss.

    It differentiates through the host, is blind to every symmetry of the block, and needs no trained target. Divergence
    from the source host's outputs is knowledge distillation at temperature 1 (Hinton et al., 2015).
    """

    Options: ClassVar[type[BaseOptions]] = FunctionalOptions
    options: FunctionalOptions
    trials: ClassVar[Trials] = (
        {},
        {"features": 0, "outputs": 1},
        {"features": 0, "task": 1},
        {"outputs": 0.5, "task": 0.5},
    )

    @property
    def examples(self) -> int:
        return self.options.examples

    def __call__(self, predicted: Params, batch: Batch) -> Tensor:
        assert batch.inputs is not None and batch.labels is not None  # `examples` asked for them
        options, runner, hosts = self.options, self.runner, batch.hosts
        if options.outputs and batch.labels.is_floating_point():
            raise TrainingError("functional: outputs: labels are no classes, so outputs are no probabilities; use task")
        with torch.no_grad():
            features = runner.former(hosts.former, batch.inputs)
            wanted = runner.source(hosts.source, features)
        reached = runner.target(predicted, features)
        loss = features.new_zeros(())
        if options.features:
            loss = loss + options.features * relative_error(reached, wanted).mean()
        if options.outputs or options.task:
            outputs = runner.latter(hosts.latter, reached)
            if options.outputs:
                if outputs.shape[-1] == 1:
                    raise TrainingError("functional: outputs: there is one output, so it is no probability; use task")
                with torch.no_grad():
                    wanted_outputs = runner.latter(hosts.latter, wanted)
                loss = loss + options.outputs * divergence(outputs, wanted_outputs).mean()
            if options.task:
                loss = loss + options.task * runner.task.loss(outputs, batch.labels).mean()
        return loss
