"""The feed-forward block that a part of a network computes: found by running the part, whatever its layers' names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

import torch
from torch import Tensor
from torch.nn.functional import linear
from torch.overrides import TorchFunctionMode

from paramtrans.api.adapter import Part
from paramtrans_blocks.activations import MAKERS, Activation

TOLERANCE = 1e-4
"""Largest difference between what the part gives and what the layers read off it do, relative to the largest."""


@dataclass(frozen=True)
class Layer:
    """A linear layer."""

    weight: Tensor
    """`[out, in]`."""
    bias: Tensor | None

    @property
    def offset(self) -> Tensor:
        """Its bias, zeros where it has none."""
        return torch.zeros_like(self.weight[:, 0]) if self.bias is None else self.bias

    def outputs(self, chosen: Tensor) -> Layer:
        """Some of its outputs alone."""
        return Layer(self.weight[chosen], None if self.bias is None else self.bias[chosen])


@dataclass(frozen=True)
class FeedForward:
    """W₂ act(W₁ x), or with a gate W₃ (act(W₁ x) · W₂ x)."""

    first: Layer
    """Before the activation."""
    up: Layer | None
    """What the activation gates, if anything."""
    down: Layer
    activation: Activation

    @property
    def bias(self) -> bool:
        """Whether any layer has one."""
        return any(layer is not None and layer.bias is not None for layer in (self.first, self.up, self.down))

    def hidden(self, x: Tensor) -> Tensor:
        """What enters the last layer, `[..., units]`."""
        units: Tensor = MAKERS[self.activation]()(linear(x, self.first.weight, self.first.bias))
        return units if self.up is None else units * linear(x, self.up.weight, self.up.bias)

    def strength(self, x: Tensor) -> Tensor:
        """What each unit adds to the outputs, as a mean square: `[units]`."""
        return self.hidden(x).flatten(0, -2).square().mean(0) * self.down.weight.square().sum(0)

    def units(self, chosen: Tensor) -> FeedForward:
        """The block with some of its units alone."""
        up = None if self.up is None else self.up.outputs(chosen)
        down = Layer(self.down.weight[:, chosen], self.down.bias)
        return FeedForward(self.first.outputs(chosen), up, down, self.activation)


@torch.no_grad()
def feed_forward_of(part: Part) -> FeedForward | None:
    """The feed-forward block that a part is.

    Args:
        part: The part.

    Returns:
        None where the part is nothing of this kind: other layers, another activation, a normalisation or a skip.
    """
    if part.run is None or part.entering.ndim < 2:
        return None
    watch = _Watch()
    with watch:
        leaving = part.run(part.entering[:1])
    if len(watch.calls) not in (2, 3) or not _alike(watch.calls[-1].given[:1], leaving):
        return None
    entering = part.entering[:1]
    *before, last = watch.calls
    if not all(_alike(call.taken[:1], entering) for call in before):
        return None
    orders = [before] if len(before) == 1 else [before, before[::-1]]
    for first, *others in orders:
        up = others[0] if others else None
        for name in get_args(Activation):
            units = MAKERS[name]()(first.given)
            if _alike(units if up is None else units * up.given, last.taken):
                return FeedForward(first.layer, None if up is None else up.layer, last.layer, name)
    return None


def _alike(values: Tensor, expected: Tensor) -> bool:
    if values.shape != expected.shape:
        return False
    return bool((values - expected).abs().max() <= TOLERANCE * expected.abs().max().clamp_min(1e-6))


@dataclass(frozen=True)
class _Call:
    layer: Layer
    taken: Tensor
    given: Tensor


class _Watch(TorchFunctionMode):
    """Notes what linear layers take and give."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[_Call] = []

    def __torch_function__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if getattr(func, "__name__", "") == "linear":
            operands = dict(zip(("input", "weight", "bias"), args, strict=False)) | (kwargs or {})
            bias = operands.get("bias")
            layer = Layer(operands["weight"].detach(), None if bias is None else bias.detach())
            self.calls.append(_Call(layer, operands["input"], result.clone()))
        return result
