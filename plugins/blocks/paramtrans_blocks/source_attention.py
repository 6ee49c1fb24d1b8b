"""The attention that a part of a network computes: found by running the part, whatever its layers are called."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from paramtrans.api.adapter import Part
from paramtrans.api.stacking import Params
from paramtrans_blocks.heads import Heads, HeadsOptions

TOLERANCE = 1e-3
"""Largest difference between what the part gives and what the attention read off it does, relative to the largest
feature."""


@torch.no_grad()
def attention_of(part: Part) -> tuple[Heads, Params] | None:
    """The multi-head attention that a part is.

    Queries, keys and values are what `scaled_dot_product_attention` is called with. Where each is a Linear layer of the
    position's features, that layer is read off features that are one in one channel and zero elsewhere; packed layers
    and fewer heads of keys count as separate and as many. What is behind is read off in the same way.

    Args:
        part: The part.

    Returns:
        The adapter and its tensors, `[1, ...]` each; None where the part is nothing of this kind, as with a mask, with
        rotary positions, or with a normalisation before its layers.
    """
    if part.run is None or part.entering.ndim != 3 or part.entering.shape != part.leaving.shape:
        return None
    positions, channels = part.entering.shape[1:]
    probe = _Probe(part.run)
    zeros = part.entering.new_zeros(1, positions, channels)
    mixed = probe.mixed(zeros)
    if mixed is None:
        return None
    heads, width = mixed[0].shape[1], mixed[2].shape[-1]
    if any(tensor.shape[-1] != width for tensor in mixed):
        return None
    layers: Params = {}
    for number, name in enumerate(("query", "key", "value")):
        weight, bias = _linear(partial(probe.by_position, number), positions, channels, zeros)
        layers |= {f"{name}.weight": weight, f"{name}.bias": bias}
    nothing = zeros.new_zeros(1, positions, heads * width)
    weight, bias = _linear(lambda x: probe.behind(zeros, x, heads), positions, heads * width, nothing)
    layers |= {"out.weight": weight, "out.bias": bias}
    entering = part.entering[:1]
    skip = probe.behind(entering, nothing, heads) - bias
    closing = probe.closing
    options = HeadsOptions(
        channels=channels,
        heads=heads,
        width=width,
        bias=any(bool(tensor.any()) for name, tensor in layers.items() if name.endswith(".bias")),
        skip="identity" if _alike(skip, entering) else "none",
        closing=None if closing is None else closing.eps,
    )
    if closing is not None:
        layers |= {"closing.weight": closing.weight, "closing.bias": closing.bias}
    adapter = Heads(options)
    params = {name: layers[name][None].contiguous() for name in adapter.spec.names}
    module = adapter.module().eval().to(part.entering)
    module.load_state_dict({name: tensor[0] for name, tensor in params.items()})
    return (adapter, params) if _alike(module(part.entering), part.leaving) else None


def _linear(
    function: Callable[[Tensor], Tensor], positions: int, channels: int, zeros: Tensor
) -> tuple[Tensor, Tensor]:
    """Weight `[out, channels]` and bias `[out]` of a function of positions that is linear in the features of each.

    Args:
        function: `[n, positions, channels]` → `[n, positions, out]`.
        positions: How many.
        channels: How many.
        zeros: `[1, positions, channels]`.
    """
    bias = function(zeros)[0, 0]
    examples = -(-channels // positions)
    single = torch.eye(examples * positions, channels).to(zeros).view(examples, positions, channels)
    columns = function(single).flatten(0, 1)[:channels] - bias
    return columns.mT, bias


def _alike(output: Tensor, expected: Tensor) -> bool:
    return bool((output - expected).abs().max() <= TOLERANCE * expected.abs().max().clamp_min(1e-6))


@dataclass(frozen=True)
class _Closing:
    """A LayerNorm that what leaves the part has passed."""

    weight: Tensor
    bias: Tensor
    eps: float


@dataclass
class _Probe:
    """A part, run with chosen features before and behind its attention."""

    run: Callable[[Tensor], Tensor]
    closing: _Closing | None = field(default=None, init=False)

    def mixed(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
        """Queries, keys and values, `[n, heads, positions, width]` each; None where there is no one attention."""
        watch = _Watch()
        with watch:
            self.run(features)
        count, seen = len(features), sum(len(query) for query, _, _ in watch.given)
        if not watch.given or seen >= count + len(watch.given[0][0]):
            return None  # none, or several
        query, key, value = (torch.cat(tensors)[:count] for tensors in zip(*watch.given, strict=True))
        if query.ndim != 4 or query.shape[-2] != features.shape[1] or query.shape[1] % key.shape[1]:
            return None
        times = query.shape[1] // key.shape[1]
        return query, key.repeat_interleave(times, 1), value.repeat_interleave(times, 1)

    def by_position(self, number: int, features: Tensor) -> Tensor:
        """Queries (0), keys (1) or values (2), `[n, positions, heads × width]`."""
        mixed = self.mixed(features)
        assert mixed is not None
        return mixed[number].transpose(1, 2).flatten(2)

    def behind(self, features: Tensor, mixed: Tensor, heads: int) -> Tensor:
        """What leaves the part, before a LayerNorm at its end, where attention gives something chosen.

        Args:
            features: What enters the part, `[1 or n, positions, channels]`.
            mixed: What attention gives, `[n, positions, heads × width]`.
            heads: How many.
        """
        count = len(mixed)
        watch = _Watch(mixed.unflatten(-1, (heads, -1)).transpose(1, 2))
        with watch:
            leaving = self.run(features.expand(count, *features.shape[1:]))
        if all(norm is not None for norm in watch.norms):
            before, after = (torch.cat(tensors)[:count] for tensors in zip(*watch.norms, strict=True))
            if torch.equal(after, leaving):
                self.closing = watch.closing
                return before
        return leaving


class _Watch(TorchFunctionMode):
    """Notes what attention is called with, and the last LayerNorm behind it; may give something else in its place."""

    def __init__(self, instead: Tensor | None = None) -> None:
        """`instead`: what attention gives, `[n, heads, positions, width]`, some of it in each call."""
        super().__init__()
        self.instead, self.begun = instead, 0
        self.given: list[tuple[Tensor, Tensor, Tensor]] = []
        self.norms: list[tuple[Tensor, Tensor] | None] = []
        self.closing: _Closing | None = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        if name == "scaled_dot_product_attention":
            query, key, value = (*args, *kwargs.values())[:3]
            scale = kwargs.get("scale") or query.shape[-1] ** -0.5
            self.given.append((query * scale * query.shape[-1] ** 0.5, key, value))
            self.norms.append(None)
            result = self._chosen(result)
        elif name == "layer_norm" and self.norms:
            operands = dict(zip(("input", "normalized_shape", "weight", "bias", "eps"), args, strict=False)) | kwargs
            self.norms[-1] = (operands["input"], result)
            weight, bias = operands.get("weight"), operands.get("bias")
            self.closing = _Closing(
                torch.ones_like(result[0, 0]) if weight is None else weight.detach(),
                torch.zeros_like(result[0, 0]) if bias is None else bias.detach(),
                operands.get("eps", 1e-5),
            )
        return result

    def _chosen(self, result: Tensor) -> Tensor:
        if self.instead is None:
            return result
        piece = self.instead[self.begun : self.begun + len(result)]
        self.begun += len(result)
        missing = len(result) - len(piece)
        return torch.cat([piece, piece[:1].expand(missing, *piece.shape[1:])])
