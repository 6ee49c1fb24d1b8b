"""Adam steps on stacked blocks; each model has a learning rate of its own, and keeps what did best on probes aside."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from paramtrans.api import stacking as stacks
from paramtrans.api.stacking import Params

RATES = (0.1, 0.03, 0.01, 0.003, 0.001)
"""Learning rates that are tried, relative to the root mean square of each tensor."""
TRIAL = 15
"""Steps that each rate is tried for."""
LEAST = 0.01
"""Root mean square that a tensor is taken to have at least, such as a bias of zeros."""
CHECKS = 10
"""Times that blocks are compared on probes kept aside."""


def start_like(start: Params, rate: float) -> Params:
    """The same learning rate for every tensor and model.

    Args:
        start: Tensors `[models, ...]`.
        rate: The learning rate.

    Returns:
        For each tensor `[models, 1, ...]`.
    """
    return {name: tensor.new_full((len(tensor), *[1] * (tensor.ndim - 1)), rate) for name, tensor in start.items()}


@dataclass(frozen=True)
class Search:
    """Adam steps from a start (Kingma and Ba, 2015, arXiv 1412.6980); no model depends on the others in its stack."""

    start: Params
    trained: Sequence[str]
    distance: Callable[[Params, Tensor], Tensor]
    """Of blocks, on probes of these numbers: `[models]`."""
    batches: Iterator[Tensor]
    """Numbers of probes to fit to, without end."""
    aside: Sequence[Tensor]
    """Numbers of probes that are kept aside."""

    def relative_rates(self) -> Params:
        """A learning rate for each model and tensor.

        It is that of `RATES` with which a few steps bring the model nearest on probes kept aside, times the tensor's
        root mean square.

        Returns:
            For each trained tensor `[models, 1, ...]`.
        """
        magnitudes = {
            name: tensor.square().flatten(1).mean(1).sqrt().clamp_min(LEAST).view(-1, *[1] * (tensor.ndim - 1))
            for name, tensor in self.start.items()
            if name in self.trained
        }
        distances = []
        for rate in RATES:
            params = self._steps(
                {name: rate * magnitude for name, magnitude in magnitudes.items()}, TRIAL, constant=True
            )
            distances.append(self._aside(params))
        after_trials = torch.stack(distances).nan_to_num(nan=torch.inf)
        best = torch.tensor(RATES, device=after_trials.device)[after_trials.argmin(0)]
        return {
            name: magnitude * best.to(magnitude).view(-1, *[1] * (magnitude.ndim - 1))
            for name, magnitude in magnitudes.items()
        }

    def run(self, rates: Params, steps: int, original: Params) -> tuple[Params, Tensor]:
        """Take steps, and keep for each model the blocks that were nearest on probes kept aside.

        Args:
            rates: Learning rates at the start, as `relative_rates` gives them; they fall to zero along a cosine.
            steps: How many steps.
            original: Blocks as they were before dead units were revived.

        Returns:
            The blocks, and whether they are nearer than the original ones, `[models]`.
        """
        best, least_distance = dict(original), self._aside(original)
        better = torch.zeros_like(least_distance, dtype=torch.bool)

        def look(params: Params) -> None:
            nonlocal best, least_distance, better
            distance = self._aside(params)
            nearer = distance < least_distance
            best = {
                name: torch.where(nearer.view(-1, *[1] * (tensor.ndim - 1)), params[name], tensor)
                for name, tensor in best.items()
            }
            least_distance, better = torch.where(nearer, distance, least_distance), better | nearer

        look(self.start)
        self._steps(rates, steps, look=look)
        return best, better

    def _steps(
        self, rates: Params, steps: int, constant: bool = False, look: Callable[[Params], None] | None = None
    ) -> Params:
        """Blocks after some steps at these rates, which fall to zero along a cosine unless they are constant."""
        params = {name: t.clone().requires_grad_(name in self.trained) for name, t in self.start.items()}
        tensors = [params[name] for name in self.trained]
        adam = [(torch.zeros_like(tensor), torch.zeros_like(tensor)) for tensor in tensors]
        interval = max(1, steps // CHECKS)
        for step in range(steps):
            share = 1.0 if constant else 0.5 * (1 + math.cos(math.pi * step / steps))
            with torch.enable_grad():
                # The sum keeps the models independent of each other.
                total = self.distance(params, next(self.batches)).sum()
                gradients = torch.autograd.grad(total, tensors, allow_unused=True)
            for name, tensor, gradient, (mean, square) in zip(self.trained, tensors, gradients, adam, strict=True):
                if gradient is not None:
                    mean.lerp_(gradient, 0.1)
                    square.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
                    moments = mean / (1 - 0.9 ** (step + 1)), square / (1 - 0.999 ** (step + 1))
                    tensor.data.sub_(share * rates[name] * moments[0] / (moments[1].sqrt() + 1e-8))
            if look is not None and ((step + 1) % interval == 0 or step + 1 == steps):
                look(stacks.detach(params))
        return stacks.detach(params)

    @torch.no_grad()
    def _aside(self, params: Params) -> Tensor:
        """The distance that is matched, on the probes kept aside: `[models]`."""
        return sum(len(piece) * self.distance(params, piece) for piece in self.aside)  # type: ignore[return-value]
