"""Steps on stacked blocks, model by model by what they do on probes kept aside: rates chosen, the best kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from paramtrans.api import stacking as stacks
from paramtrans.api.stacking import Params

RATES = (0.1, 0.03, 0.01, 0.003, 0.001)
"""Rates that are tried, relative to the root mean square of each tensor."""
TRIAL = 15
"""Steps that each is tried for."""
LEAST = 0.01
"""Root mean square that a tensor is taken to have at least, such as a bias of zeros."""
CHECKS = 10
"""Times that blocks are looked at on the way."""


def start_like(start: Params, rate: float) -> Params:
    """The same rate for every tensor and model, each of a shape that spreads over its tensor."""
    return {name: tensor.new_full((len(tensor), *[1] * (tensor.ndim - 1)), rate) for name, tensor in start.items()}


@dataclass(frozen=True)
class Search:
    """Adam steps from a start; no model depends on the others beside it."""

    start: Params
    trained: Sequence[str]
    distance: Callable[[Params, Tensor], Tensor]
    """Of blocks, on probes of these numbers: `[models]`."""
    batches: Iterator[Tensor]
    """Numbers of probes to fit to, without end."""
    aside: Sequence[Tensor]
    """Numbers of probes that are kept aside."""

    def relative_rates(self) -> Params:
        """For each model and tensor a rate: that of `RATES` with which a few steps bring the model nearest on probes
        kept aside, times the tensor's root mean square."""
        size = {
            name: tensor.square().flatten(1).mean(1).sqrt().clamp_min(LEAST).view(-1, *[1] * (tensor.ndim - 1))
            for name, tensor in self.start.items()
            if name in self.trained
        }
        tried = []
        for rate in RATES:
            params = self._steps({name: rate * own for name, own in size.items()}, TRIAL, constant=True)
            tried.append(self._aside(params))
        ends = torch.stack(tried).nan_to_num(nan=torch.inf)
        best = torch.tensor(RATES, device=ends.device)[ends.argmin(0)]
        return {name: own * best.to(own).view(-1, *[1] * (own.ndim - 1)) for name, own in size.items()}

    def run(self, rates: Params, steps: int, came: Params) -> tuple[Params, Tensor]:
        """For each model the blocks that were nearest on probes kept aside, and whether they are others than those that
        it `came` with, which may have had dead units, `[models]`."""
        best, least = dict(came), self._aside(came)
        better = torch.zeros_like(least, dtype=torch.bool)

        def look(params: Params) -> None:
            nonlocal best, least, better
            now = self._aside(params)
            nearer = now < least
            best = {
                name: torch.where(nearer.view(-1, *[1] * (tensor.ndim - 1)), params[name], tensor)
                for name, tensor in best.items()
            }
            least, better = torch.where(nearer, now, least), better | nearer

        look(self.start)
        self._steps(rates, steps, look=look)
        return best, better

    def _steps(
        self, rates: Params, steps: int, constant: bool = False, look: Callable[[Params], None] | None = None
    ) -> Params:
        """Blocks after some steps at these rates, which fall to zero along a cosine unless they are constant."""
        params = {name: t.clone().requires_grad_(name in self.trained) for name, t in self.start.items()}
        moved = [params[name] for name in self.trained]
        adam = [(torch.zeros_like(tensor), torch.zeros_like(tensor)) for tensor in moved]
        every = max(1, steps // CHECKS)
        for step in range(steps):
            share = 1.0 if constant else 0.5 * (1 + math.cos(math.pi * step / steps))
            with torch.enable_grad():
                # The sum keeps the models independent of each other.
                total = self.distance(params, next(self.batches)).sum()
                gradients = torch.autograd.grad(total, moved, allow_unused=True)
            for name, tensor, gradient, (mean, square) in zip(self.trained, moved, gradients, adam, strict=True):
                if gradient is not None:
                    mean.lerp_(gradient, 0.1)
                    square.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
                    moments = mean / (1 - 0.9 ** (step + 1)), square / (1 - 0.999 ** (step + 1))
                    tensor.data.sub_(share * rates[name] * moments[0] / (moments[1].sqrt() + 1e-8))
            if look is not None and ((step + 1) % every == 0 or step + 1 == steps):
                look(stacks.detach(params))
        return stacks.detach(params)

    @torch.no_grad()
    def _aside(self, params: Params) -> Tensor:
        """What is matched, on the probes kept aside."""
        return sum(len(piece) * self.distance(params, piece) for piece in self.aside)  # type: ignore[return-value]
