"""What blocks compute on the translator's own probes: the target's readout solved for, and what is still wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, unfold

from paramtrans.api.adapter import BlockAdapter
from paramtrans.api.context import Context
from paramtrans.api.runner import Stacked
from paramtrans.api.stacking import Params
from paramtrans.backends.vmap import block_stacked, stacked
from paramtrans.errors import SpecMismatch
from paramtrans.ops.readout import UpToReadout
from paramtrans.ops.sensitivity import sensitivity
from paramtrans.translators.base import positive

GAIN = 10.0
"""Probes are learned this much faster than weights; Adam moves both by its rate."""
PASSES = 3
"""Least-squares solutions in a row, each with the errors left out that the final ReLU hides."""


@dataclass(frozen=True)
class Seen:
    """The slot on the probes, each `[models, probes, channels, height, width]`."""

    entering: Tensor
    wanted: Tensor
    """What the source block makes of what enters it."""
    weights: Tensor
    """What each value of a position counts, `[models, probes, 1, height, width]`."""


class OwnProbes(nn.Module):
    """Network inputs that are weights of a translator: they begin as smooth noise, and are learned with the rest."""

    def __init__(self, count: int, shape: tuple[int, ...], weigh: bool) -> None:
        super().__init__()
        self.weigh = weigh
        self.inputs = nn.Parameter(_smooth(count, shape) / GAIN)

    def forward(self, source: Stacked, context: Context | None) -> Seen:
        """Runs former and source blocks; raises `SpecMismatch` where the context has no network, or of other inputs."""
        probes = GAIN * self.inputs
        if context is None or context.hosts is None or context.runner is None:
            raise SpecMismatch(
                "this translator runs probes of its own through hosts, so it takes those alone: a network of --arch "
                "task:TASK:BLOCK, or a context with hosts and a runner"
            )
        models = len(context.hosts)
        try:
            features = context.runner.former(context.hosts.former, probes.expand(models, *probes.shape))
        except RuntimeError as error:
            raise SpecMismatch(f"translator.input: the hosts cannot take {list(probes.shape[1:])}: {error}") from error
        wanted = source(context.hosts.source, features)
        weights = torch.ones_like(features[:, :, :1])
        if self.weigh:
            by_value = sensitivity(context.runner.latter, context.hosts.latter, wanted)
            weights = weights * by_value.mean(1, keepdim=True)[:, None]
        return Seen(features, wanted, weights)


class SolvedReadout:
    """Least-squares reconstruction (ridge regression) of the target's last layer, differentiable in what it reads.

    The same as `paramtrans.ops.readout` does, inside the graph of a translator's weights.

    Args:
        target: The block; its adapter names its `readout`.
        ridge: How strongly weights are pulled to zero.

    Raises:
        SpecMismatch: the readout is neither Linear nor a convolution.
    """

    def __init__(self, target: BlockAdapter, ridge: float) -> None:
        assert target.readout is not None
        self.target, self.ridge, self.name = target, ridge, target.readout
        module = target.module()
        layer = module.get_submodule(self.name)
        if not isinstance(layer, nn.Linear | nn.Conv2d):
            raise SpecMismatch(
                f"the target's readout {self.name} is {layer}; only Linear and convolutions are solved for"
            )
        self.layer = layer
        self._features = stacked(UpToReadout(module))

    def __call__(self, params: Params, seen: Seen) -> Params:
        """The target with its readout solved for, so that the block does on the probes what the source does."""
        with torch.autocast(
            seen.entering.device.type, enabled=False
        ):  # Gram matrices in bfloat16 have no Cholesky factor
            return self._solved_for(params, seen)

    def _solved_for(self, params: Params, seen: Seen) -> Params:
        below = {f"block.{name}": tensor for name, tensor in params.items()}
        rows = self._rows(self._features(below, seen.entering))
        entering, wanted = _by_position(seen.entering), _by_position(seen.wanted)
        residual = wanted - entering
        counted = rows * _by_position(seen.weights)
        root = self._root(rows, counted)
        weights = _solved(root, counted, residual)
        if self.target.rectified:
            for _ in range(PASSES - 1):
                # Where the source gives zero, all that is below zero before the ReLU is as good.
                below_zero = torch.minimum(rows @ weights, -entering)
                weights = _solved(root, counted, torch.where(wanted > 0, residual, below_zero))
        return params | self._tensors(weights, params)

    def _rows(self, features: Tensor) -> Tensor:
        """What the readout reads at each position of each probe: `[models, positions, values]`."""
        if isinstance(self.layer, nn.Conv2d) and self.layer.kernel_size != (1, 1):
            # Padding by name (`same`) is not known to unfold, and no adapter of a readout has it.
            padding: Any = self.layer.padding
            patches = unfold(features.flatten(0, 1), self.layer.kernel_size, padding=padding)
            rows = patches.view(*features.shape[:2], *patches.shape[1:]).transpose(2, 3).flatten(1, 2)
        else:
            rows = _by_position(features)
        return rows if self.layer.bias is None else torch.cat([rows, torch.ones_like(rows[..., :1])], dim=2)

    def _root(self, rows: Tensor, counted: Tensor) -> Tensor:
        """Cholesky factor of the rows' second moments with the ridge: `[models, values, values]`."""
        gram = counted.mT @ rows / rows.shape[1]
        # Where all units are dead, something must be left to divide by.
        ridge = (self.ridge * gram.diagonal(dim1=1, dim2=2).mean(1, keepdim=True)).clamp_min(1e-9)
        root: Tensor = torch.linalg.cholesky(gram + torch.diag_embed(ridge.expand(gram.shape[:2])))
        return root

    def _tensors(self, weights: Tensor, params: Params) -> Params:
        solved: Params = {}
        if self.layer.bias is not None:
            solved[f"{self.name}.bias"], weights = weights[:, -1], weights[:, :-1]
        name = f"{self.name}.weight"
        return {name: weights.mT.reshape(params[name].shape), **solved}


class Errors:
    """The gradient of the squared error on the probes: what a change of the target would better."""

    def __init__(self, target: BlockAdapter) -> None:
        self.spec, self._run = target.spec, block_stacked(target)

    def __call__(self, params: Params, seen: Seen) -> Params:
        """For the target before `positive`; each tensor scaled to mean square 1 in each model, outside any graph."""
        with torch.enable_grad():
            leaves = {name: tensor.detach().requires_grad_() for name, tensor in params.items()}
            output = self._run(positive(leaves, self.spec), seen.entering.detach())
            error = (seen.weights * (output - seen.wanted.detach()).square()).flatten(1).mean(1).sum()
            gradients = torch.autograd.grad(error, list(leaves.values()))
        return {name: _unit(gradient) for name, gradient in zip(leaves, gradients, strict=True)}


def _solved(root: Tensor, rows: Tensor, wanted: Tensor) -> Tensor:
    return torch.cholesky_solve(rows.mT @ wanted / rows.shape[1], root)


def _by_position(features: Tensor) -> Tensor:
    """`[models, probes, channels, height, width]` → `[models, positions, channels]`."""
    return features.movedim(2, -1).flatten(1, -2)


def _unit(gradient: Tensor) -> Tensor:
    size = gradient.flatten(1).square().mean(1).sqrt().clamp_min(1e-12)
    return gradient / size.view(-1, *[1] * (gradient.ndim - 1))


def _smooth(count: int, shape: tuple[int, ...]) -> Tensor:
    """Noise with a grain of a quarter of the last two axes, nothing below zero."""
    if len(shape) < 2:
        return torch.randn(count, *shape)
    *before, height, width = shape
    coarse = torch.randn(count, max(1, int(torch.tensor(before).prod())), -(-height // 4), -(-width // 4))
    return interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1).view(count, *shape)
