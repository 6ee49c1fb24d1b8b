"""Probes recalled from each network: inputs whose features have the mean and variance its BatchNorms remember."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import ClassVar

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.modules.batchnorm import _BatchNorm

from paramtrans.api.options import BaseOptions, Trials
from paramtrans.api.probes import ProbeCase, ProbeOptions, Probes
from paramtrans.api.stacking import Params, join
from paramtrans.backends.host_runner import network
from paramtrans.errors import SpecMismatch
from paramtrans_probes.synthetic import Smooth, SmoothOptions

HOSTS_AT_ONCE = 16
INPUTS_AT_ONCE = 32
"""Inputs for a user's own network that are fitted together: its features are kept for going backwards."""


class RecalledOptions(ProbeOptions):
    """How long inputs are fitted."""

    steps: PositiveInt = 100
    """Adam steps."""
    lr: PositiveFloat = 0.05
    """Learning rate of the values of the inputs."""


class Recalled(Probes):
    """Starts at smooth fields and fits them, for each host, until batch statistics are the running ones.

    The idea is DeepInversion's (arXiv 1912.08795), without its classes: no label is used. Values stay in [0, 1]; those
    for a user's own network, which may want others, do not.
    """

    Options: ClassVar[type[BaseOptions]] = RecalledOptions
    options: RecalledOptions
    trials: ClassVar[Trials] = ({"steps": 3, "count": 6},)
    own_inputs: ClassVar[bool] = True

    def draw(self, case: ProbeCase) -> Tensor:
        start = Smooth(SmoothOptions(count=self.options.count)).draw(case)
        if case.network is not None:
            return self._for_network(case.network, start)
        if case.hosts is None or case.task is None or case.source is None:
            raise SpecMismatch("bn_statistics are those of a task's hosts; give a case with hosts, task and source")
        module = network(case.task, case.source)
        fitted = []
        for chosen in torch.arange(len(case.hosts)).split(HOSTS_AT_ONCE):
            hosts = case.hosts.pick(chosen)
            params = join({"former": hosts.former, "block": hosts.source, "latter": hosts.latter})
            fitted.append(self._fit(module, params, start.to(next(iter(params.values())).device)))
        return torch.cat(fitted)

    def _fit(self, module: nn.Module, params: Params, start: Tensor) -> Tensor:
        """Inputs for some hosts: `[count, ...]` → `[models, count, ...]`."""
        distances, models = StatisticsDistance(module), len(next(iter(params.values())))
        distance = partial(distances, params)
        return self._descend(distance, start.expand(models, *start.shape), (0, 1))

    def _for_network(self, given: nn.Module, start: Tensor) -> Tensor:
        """Inputs for a user's own network: `[count, ...]` → the same shape."""
        distances = StatisticsDistance(given)
        params = {name: tensor.detach() for name, tensor in given.state_dict().items()}
        distance = partial(distances.of_one, params)
        start = start.to(next(iter(params.values())).device)
        return torch.cat([self._descend(distance, inputs, None) for inputs in start.split(INPUTS_AT_ONCE)])

    def _descend(
        self, distance: Callable[[Tensor], Tensor], start: Tensor, limits: tuple[float, float] | None
    ) -> Tensor:
        """Adam on inputs, within `limits` if there are any."""
        inputs = start.clone().requires_grad_()
        optimizer = torch.optim.Adam([inputs], lr=self.options.lr)
        for _ in range(self.options.steps):
            optimizer.zero_grad()
            distance(inputs).sum().backward()
            optimizer.step()
            if limits is not None:
                inputs.data.clamp_(*limits)
        return inputs.detach()


class StatisticsDistance:
    """How far the statistics of a batch are from those a network remembers, summed over its BatchNorms.

    Raises `SpecMismatch` for a network that has none.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module.eval()
        self._found: dict[str, tuple[Tensor, Tensor]] = {}
        norms = {name: child for name, child in module.named_modules() if isinstance(child, _BatchNorm)}
        if not any(norm.track_running_stats for norm in norms.values()):
            raise SpecMismatch("bn_statistics need a network with BatchNorm; try strokes or smooth")
        self.norms = {name: norm.eps for name, norm in norms.items() if norm.track_running_stats}
        for name in self.norms:
            norms[name].register_forward_pre_hook(self._keep(name))

    def _keep(self, name: str):  # type: ignore[no-untyped-def]
        def keep(module: nn.Module, given: tuple[Tensor, ...]) -> None:
            axes = [axis for axis in range(given[0].ndim) if axis != 1]
            self._found[name] = given[0].mean(axes), given[0].std(axes)

        return keep

    def __call__(self, params: Params, inputs: Tensor) -> Tensor:
        """Stacked parameters and inputs `[models, batch, ...]` → `[models]`."""
        distances: Tensor = vmap(self.of_one)(params, inputs)
        return distances

    def of_one(self, params: Params, inputs: Tensor) -> Tensor:
        """Of one network: its `state_dict`, and inputs `[batch, ...]`."""
        functional_call(self.module, params, (inputs,))
        terms = []
        for name, eps in self.norms.items():
            found_mean, found_deviation = self._found.pop(name)
            mean, variance = params[f"{name}.running_mean"], params[f"{name}.running_var"].clamp_min(eps)
            terms.append(((found_mean - mean).square() / variance).mean())
            terms.append((found_deviation / variance.sqrt() - 1).square().mean())
        return torch.stack(terms).sum()
