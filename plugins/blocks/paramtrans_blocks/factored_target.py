"""What families share in which each convolution is a thin one and a 1×1: how they start in place of whole ones."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, relu

from paramtrans.api.adapter import Part
from paramtrans.api.stacking import Params
from paramtrans.ops.halves import Halves
from paramtrans.ops.views import whole
from paramtrans_blocks.chain_target import ChainTarget, folded_layers, projection


@dataclass(frozen=True)
class Factored:
    """A convolution, and a thin one with a 1×1 behind it that stand for it."""

    weight: Tensor
    """Of the whole convolution, `[out, in, k, k]`."""
    bias: Tensor
    """`[out]`."""
    thin: Tensor
    """Of the thin one: `[in, 1, k, k]` where it is depthwise, else `[rank, in, k, k]`; it has no bias."""
    pointwise: Tensor
    """Of the 1×1, `[out, in or rank, 1, 1]`."""


class FactoredTarget(ChainTarget):
    """A chain of one or two convolutions, each as a thin one and a 1×1.

    In place of convolutions it starts from a factorisation of their weights; then each 1×1 in order is solved for by
    least squares, so that what leaves it is what left the whole convolution (Zhang et al. 2016, arXiv 1505.06798,
    section 3.3, without its account of the ReLU).
    """

    @abstractmethod
    def factors(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """The weights `[out, in, k, k]` of a convolution as those of a thin one and of a 1×1, near it."""

    @abstractmethod
    def leaving(self) -> tuple[int, ...]:
        """Channels that leave each of the convolutions that are factored."""

    def warm_start(self, part: Part) -> Params | None:
        layers = folded_layers(part)
        if layers is None or len(layers) != self.options.layers:
            return None
        kernel = self.options.kernel
        shapes = [(len(weight), *weight.shape[2:]) for weight, _ in layers]
        if shapes != [(channels, kernel, kernel) for channels in self.leaving()]:
            return None
        factored = [
            Factored(weight, torch.zeros(len(weight)).to(weight) if bias is None else bias, *self.factors(weight))
            for weight, bias in layers
        ]
        params = projection(part) if self.options.skip == "projection" else {}
        solved = reconstructed(part.entering, factored, self.options.stride)
        for number, (layer, (weight, bias)) in enumerate(zip(factored, solved, strict=True)):
            params[f"conv{2 * number + 1}.weight"] = layer.thin[None]
            params[f"conv{2 * number + 2}.weight"], params[f"conv{2 * number + 2}.bias"] = weight[None], bias[None]
        specs = {tensor.name: tensor.shape for tensor in self.spec.tensors}
        fits = all(name in params and params[name].shape[1:] == shape for name, shape in specs.items())
        return {name: params[name] for name in specs} if fits else None


@torch.no_grad()
def reconstructed(features: Tensor, layers: Sequence[Factored], stride: int) -> list[tuple[Tensor, Tensor]]:
    """Least-squares reconstruction of each 1×1 in order, behind those before it.

    Args:
        features: What enters the first convolution, `[examples, in, height, width]`.
        layers: The convolutions in order, with a ReLU between them.
        stride: Of the first one.

    Returns:
        Weight and bias of each 1×1. They are pulled towards what `layers` has, as strongly as half of the examples says
        for the other.
    """
    solved = []
    exact = reached = features
    for number, layer in enumerate(layers):
        step, padding = 1 if number else stride, layer.weight.shape[-1] // 2
        wanted = conv2d(exact, layer.weight, layer.bias, step, padding)
        read = conv2d(reached, layer.thin, None, step, padding, groups=reached.shape[1] // layer.thin.shape[1])
        halves = Halves()
        halves.add(nn.Conv2d(read.shape[1], wanted.shape[1], 1), read[None], wanted[None])
        start = torch.cat([layer.pointwise.flatten(1), layer.bias[:, None]], dim=1).mT[None].double()
        solution = whole(halves.total()).ridge(start, halves.ridge(whole, start))[0].mT
        weight, bias = solution[:, :-1, None, None].to(read), solution[:, -1].to(read)
        solved.append((weight, bias))
        exact, reached = relu(wanted), relu(conv2d(read, weight, bias))
    return solved
