"""A thinner convolution between two of 1×1, in place of a block of two."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from pydantic import PositiveInt
from torch import Tensor
from torch.nn.functional import conv2d, relu

from paramtrans.api.adapter import BlockAdapter, BlockOptions, Part
from paramtrans.api.options import Trials
from paramtrans.api.specs import TensorSpec
from paramtrans.api.stacking import Params
from paramtrans_blocks.chain_target import ChainTarget, ChainTargetOptions, folded_layers, projection
from paramtrans_blocks.conv_chain import Step
from paramtrans_blocks.solved import solved_layer


class BottleneckOptions(ChainTargetOptions):
    """Sizes of a bottleneck."""

    layers: Literal[2] = 2
    """As it takes a block's place."""
    hidden: tuple[PositiveInt, PositiveInt] | None = None
    """Channels that enter and leave the convolution; half of those that leave the block by default."""


class Bottleneck(ChainTarget):
    """1×1, ReLU, convolution, ReLU, 1×1, + skip, ReLU (He et al. 2016, arXiv 1512.03385, figure 5).

    In place of two convolutions it starts from the channels that say most of the others, the strongest hidden units as
    they are made of these, and a last layer by least squares.
    """

    Options: ClassVar[type[BlockOptions]] = BottleneckOptions
    options: BottleneckOptions
    trials: ClassVar[Trials] = (
        {"hidden": [8, 6]},
        {},
        {"hidden": [3, 2], "kernel": 5},
        {"hidden": [2, 2], "skip": "none", "final": None},
    )

    def widths(self) -> tuple[int, ...]:
        return self.options.hidden or (max(1, self.out // 2),) * 2

    def with_sizes(self, sizes: Mapping[str, int]) -> BlockAdapter:
        hidden = tuple(sizes.get(f"hidden{i}", size) for i, size in enumerate(self.widths(), 1))
        return type(self)(self.options.model_copy(update={"hidden": hidden}))

    def steps(self) -> list[Step]:
        kernel, stride = self.options.kernel, self.options.stride
        return [
            Step(kernel=1, padding=0, bias=True, norm=None),
            Step(kernel=kernel, stride=stride, padding=kernel // 2, bias=True, norm=None),
            Step(kernel=1, padding=0, bias=True, norm=None, activation=None),
        ]

    @torch.no_grad()
    def warm_start(self, part: Part) -> Params | None:
        layers, options = folded_layers(part), self.options
        if layers is None or len(layers) != 2 or layers[0][0].shape[-1] != options.kernel:
            return None
        (first, offset), (second, last_offset) = layers
        hidden, padding = self.widths(), options.kernel // 2
        if hidden[0] > first.shape[1] or hidden[1] > len(first):
            return None
        offset = first.new_zeros(len(first)) if offset is None else offset
        units = relu(conv2d(part.entering, first, offset, options.stride, padding))
        wanted = conv2d(units, second, last_offset, 1, second.shape[-1] // 2)
        chosen, others = spanning(part.entering.movedim(1, -1).flatten(0, -2), hidden[0])
        strength = units.square().mean((0, 2, 3)) * second.square().sum((0, 2, 3))
        strongest = strength.topk(hidden[1]).indices.sort().values
        params = {
            "conv1.weight": torch.eye(first.shape[1]).to(first)[chosen, :, None, None],
            "conv1.bias": first.new_zeros(hidden[0]),
            "conv2.weight": torch.einsum("ocij,cs->osij", first[strongest], others),
            "conv2.bias": offset[strongest],
        }
        features = relu(conv2d(part.entering, params["conv1.weight"], params["conv1.bias"]))
        features = relu(conv2d(features, params["conv2.weight"], params["conv2.bias"], options.stride, padding))
        start = second[:, strongest].sum((2, 3)), wanted.mean((0, 2, 3))
        weight, bias = solved_layer(features.movedim(1, -1), wanted.movedim(1, -1), *start)
        assert bias is not None
        params |= {"conv3.weight": weight[:, :, None, None], "conv3.bias": bias}
        started = {name: tensor[None] for name, tensor in params.items()}
        started |= projection(part) if options.skip == "projection" else {}
        fits = all(name in started and started[name].shape[1:] == spec.shape for name, spec in self._specs().items())
        return {name: started[name].contiguous() for name in self._specs()} if fits else None

    def _specs(self) -> dict[str, TensorSpec]:
        return {tensor.name: tensor for tensor in self.spec.tensors}


def spanning(rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Channels from which all others can be made with least error, one after the other (pivoted Cholesky).

    Args:
        rows: Features, `[n, channels]`.
        count: How many are chosen.

    Returns:
        Their numbers `[count]`, in order, and the matrix that makes all channels of them, `[channels, count]`.
    """
    gram = rows.double().mT @ rows.double()
    left, chosen = gram.clone(), list[int]()
    for _ in range(count):
        explained = left.square().sum(0) / left.diagonal().clamp_min(1e-9 * gram.diagonal().mean() + 1e-30)
        explained[chosen] = -1
        best = int(explained.argmax())
        chosen.append(best)
        column = left[:, best] / left[best, best].clamp_min(1e-30).sqrt()
        left = left - column[:, None] * column
    numbers = torch.tensor(sorted(chosen), device=rows.device)
    among = gram[numbers][:, numbers]
    among.diagonal().add_(1e-6 * among.diagonal().mean() + 1e-12)
    return numbers, torch.linalg.solve(among, gram[numbers]).mT.to(rows)
