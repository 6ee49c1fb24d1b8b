"""Probes recalled from each network: inputs whose features have the mean and variance its BatchNorms remember."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.modules.batchnorm import _BatchNorm

from paramtrans.errors import SpecMismatch
from paramtrans.hosts import Params, join
from paramtrans.options import BaseOptions, Trials
from paramtrans.protocols import ProbeCase, ProbeOptions, Probes
from paramtrans.stacked import network
from paramtrans_probes.synthetic import Smooth, SmoothOptions

HOSTS_AT_ONCE = 16


class RecalledOptions(ProbeOptions):
    """How long inputs are fitted."""

    steps: PositiveInt = 100
    """Adam steps."""
    lr: PositiveFloat = 0.05
    """Learning rate of the values of the inputs."""


class Recalled(Probes):
    """Starts at smooth fields and fits them, for each host, until batch statistics are the running ones.

    The idea is DeepInversion's (arXiv 1912.08795), without its classes: no label is used. Values stay in [0, 1].
    """

    Options: ClassVar[type[BaseOptions]] = RecalledOptions
    options: RecalledOptions
    trials: ClassVar[Trials] = ({"steps": 3, "count": 6},)
    own_inputs: ClassVar[bool] = True

    def draw(self, case: ProbeCase) -> Tensor:
        if case.hosts is None or case.task is None or case.source is None:
            raise SpecMismatch("bn_statistics are those of a task's hosts; give a case with hosts, task and source")
        module = network(case.task, case.source)
        start = Smooth(SmoothOptions(count=self.options.count)).draw(case)
        fitted = []
        for chosen in torch.arange(len(case.hosts)).split(HOSTS_AT_ONCE):
            some = case.hosts.pick(chosen)
            params = join({"former": some.former, "block": some.source, "latter": some.latter})
            fitted.append(self._fit(module, params, start.to(next(iter(params.values())).device)))
        return torch.cat(fitted)

    def _fit(self, module: nn.Module, params: Params, start: Tensor) -> Tensor:
        """Inputs for some hosts: `[count, ...]` → `[models, count, ...]`."""
        distances = StatisticsDistance(module)
        models = len(next(iter(params.values())))
        inputs = start.expand(models, *start.shape).clone().requires_grad_()
        optimizer = torch.optim.Adam([inputs], lr=self.options.lr)
        for _ in range(self.options.steps):
            optimizer.zero_grad()
            distances(params, inputs).sum().backward()
            optimizer.step()
            inputs.data.clamp_(0, 1)
        return inputs.detach()


class StatisticsDistance:
    """How far the statistics of a batch are from those a network remembers, summed over its BatchNorms.

    Raises `SpecMismatch` for a network that has none.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module.eval()
        self._entered: dict[str, Tensor] = {}
        norms = {name: child for name, child in module.named_modules() if isinstance(child, _BatchNorm)}
        if not any(norm.track_running_stats for norm in norms.values()):
            raise SpecMismatch("bn_statistics need a network with BatchNorm; try strokes or smooth")
        self.norms = [name for name, norm in norms.items() if norm.track_running_stats]
        for name in self.norms:
            norms[name].register_forward_pre_hook(self._keep(name))

    def _keep(self, name: str):  # type: ignore[no-untyped-def]
        def keep(module: nn.Module, given: tuple[Tensor, ...]) -> None:
            self._entered[name] = given[0]

        return keep

    def __call__(self, params: Params, inputs: Tensor) -> Tensor:
        """Stacked parameters and inputs `[models, batch, ...]` → `[models]`."""
        found: Tensor = vmap(self._one)(params, inputs)
        return found

    def _one(self, params: Params, inputs: Tensor) -> Tensor:
        functional_call(self.module, params, (inputs,))
        terms = []
        for name in self.norms:
            entered = self._entered.pop(name)
            axes = [axis for axis in range(entered.ndim) if axis != 1]
            mean, variance = params[f"{name}.running_mean"], params[f"{name}.running_var"]
            terms.append(((entered.mean(axes) - mean).square() / variance).mean())
            terms.append((entered.std(axes) / variance.sqrt() - 1).square().mean())
        return torch.stack(terms).sum()
