"""The functional objective: the predicted block is judged by what comes out between the frozen former and latter."""

from __future__ import annotations

from typing import ClassVar, Self

import torch
from pydantic import NonNegativeFloat, PositiveInt, model_validator
from torch import Tensor
from torch.nn.functional import kl_div, log_softmax

from paramtrans.hosts import Params
from paramtrans.options import BaseOptions
from paramtrans.protocols import Batch, Objective


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
    """Differentiates through the host. It is blind to every symmetry of the block, and needs no trained target."""

    Options: ClassVar[type[BaseOptions]] = FunctionalOptions
    options: FunctionalOptions

    @property
    def examples(self) -> int:
        return self.options.examples

    def __call__(self, predicted: Params, batch: Batch) -> Tensor:
        assert batch.inputs is not None and batch.labels is not None  # `examples` asked for them
        options, runner, hosts = self.options, self.runner, batch.hosts
        with torch.no_grad():
            features = runner.former(hosts.former, batch.inputs)
            wanted = runner.source(hosts.source, features)
        found = runner.target(predicted, features)
        loss = features.new_zeros(())
        if options.features:
            loss = loss + options.features * _relative_error(found, wanted).mean()
        if options.outputs or options.task:
            outputs = runner.latter(hosts.latter, found)
            if options.outputs:
                with torch.no_grad():
                    wanted_outputs = runner.latter(hosts.latter, wanted)
                loss = loss + options.outputs * _divergence(outputs, wanted_outputs).mean()
            if options.task:
                loss = loss + options.task * runner.task.loss(outputs, batch.labels).mean()
        return loss


def _relative_error(found: Tensor, wanted: Tensor) -> Tensor:
    """Mean squared error of each host over the variance of its wanted features: `[models, batch, ...]` → `[models]`."""
    error = (found - wanted).flatten(1).square().mean(1)
    return error / wanted.flatten(1).var(1, correction=0).clamp_min(1e-8)


def _divergence(found: Tensor, wanted: Tensor) -> Tensor:
    """KL divergence of each host from the wanted output probabilities: `[models, batch, classes]` → `[models]`."""
    logs = (log_softmax(found, -1), log_softmax(wanted, -1))
    return kl_div(*logs, reduction="none", log_target=True).sum(-1).mean(1)
