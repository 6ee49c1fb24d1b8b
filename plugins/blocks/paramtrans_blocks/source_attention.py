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
from paramtrans_blocks.source_rotary import Rotary, rotary_of

TOLERANCE = 1e-3
"""Largest difference between what the part gives and what the attention read off it does, relative to the largest
feature."""
OPERANDS = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal", "scale", "enable_gqa")
"""Names of the arguments of attention by position."""


@torch.no_grad()
def attention_of(part: Part) -> tuple[Heads, Params] | None:
    """The multi-head attention that a part is.

    Queries, keys and values are what `scaled_dot_product_attention` is called with. Where each is a Linear layer of the
    position's features, that layer is read off features that are one in one channel and zero elsewhere; packed layers
    count as separate. Rotary positions are read off features that are the same everywhere, and taken back before that.
    What is behind is read off in the same way.

    Args:
        part: The part.

    Returns:
        The adapter and its tensors, `[1, ...]` each; None where the part is nothing of this kind, as with a mask other
        than the causal one, or with a normalisation before its layers.
    """
    if part.run is None or part.entering.ndim != 3 or part.entering.shape != part.leaving.shape:
        return None
    positions, channels = part.entering.shape[1:]
    probe = _Probe(part.run)
    zeros = part.entering.new_zeros(1, positions, channels)
    mixed = probe.mixed(zeros)
    if mixed is None or probe.causal is None:
        return None
    heads, width = mixed[0].shape[1], mixed[2].shape[-1]
    if any(tensor.shape[-1] != width for tensor in mixed):
        return None
    if (rotary := _rotary(probe, part.entering)) is None:
        return None
    layers = _layers(probe, rotary, zeros) | _behind(probe, heads, width, zeros)
    key_heads, entering = _key_heads(layers, heads), part.entering[:1]
    skip = probe.behind(entering, zeros.new_zeros(1, positions, heads * width), heads) - layers["out.bias"]
    options = HeadsOptions(
        channels=channels,
        heads=heads,
        width=width,
        key_heads=None if key_heads == heads else key_heads,
        bias=any(bool(tensor.any()) for name, tensor in layers.items() if name.endswith(".bias")),
        skip="identity" if _alike(skip, entering) else "none",
        closing=None if probe.closing is None else probe.closing.eps,
        causal=probe.causal,
        frequencies=rotary.frequencies,
        neighbours=rotary.neighbours,
    )
    if probe.closing is not None:
        layers |= {"closing.weight": probe.closing.weight, "closing.bias": probe.closing.bias}
    adapter = Heads(options)
    params = {name: _first_of_each(name, layers[name], options)[None].contiguous() for name in adapter.spec.names}
    module = adapter.module().eval().to(part.entering)
    module.load_state_dict({name: tensor[0] for name, tensor in params.items()})
    return (adapter, params) if _alike(module(part.entering), part.leaving) else None


@torch.no_grad()
def is_causal(part: Part) -> bool:
    """Whether what a part makes at a position depends on positions up to there alone.

    Args:
        part: With features `[examples, positions, channels]`.
    """
    if part.run is None or part.entering.ndim != 3 or part.entering.shape[1] < 2:
        return False
    half = part.entering.shape[1] // 2
    changed = part.entering.clone()
    changed[:, half:] = 2 * changed[:, half:].flip(1) + 1
    return _alike(part.run(changed)[:, :half], part.leaving[:, :half])


def _rotary(probe: _Probe, entering: Tensor) -> Rotary | None:
    """How queries and keys turn with positions; None where they change in another way, or not alike."""
    constant = entering[:2, :1].expand(-1, entering.shape[1], -1)
    mixed = probe.mixed(constant)
    assert mixed is not None
    of_queries, of_keys = (rotary_of(values) for values in mixed[:2])
    if of_queries is None or of_keys is None or of_queries.neighbours != of_keys.neighbours:
        return None
    return of_queries if len(of_queries.frequencies) == len(of_keys.frequencies) else None


def _layers(probe: _Probe, rotary: Rotary, zeros: Tensor) -> Params:
    """Weights and biases of queries, keys and values, `[heads × width, ...]`."""
    layers: Params = {}
    for number, name in enumerate(("query", "key", "value")):
        turns = Rotary(()) if name == "value" else rotary
        weight, bias = _linear(partial(probe.by_position, number, turns), zeros.shape[1], zeros.shape[2], zeros)
        layers |= {f"{name}.weight": weight, f"{name}.bias": bias}
    return layers


def _behind(probe: _Probe, heads: int, width: int, zeros: Tensor) -> Params:
    """Weight and bias of the layer that reads all heads."""
    positions, values = zeros.shape[1], heads * width
    nothing = zeros.new_zeros(1, positions, values)
    weight, bias = _linear(lambda x: probe.behind(zeros, x, heads), positions, values, nothing)
    return {"out.weight": weight, "out.bias": bias}


def _first_of_each(name: str, layer: Tensor, options: HeadsOptions) -> Tensor:
    """Of heads that share their keys and values, these once."""
    if name.partition(".")[0] not in ("key", "value"):
        return layer
    groups: Tensor = layer.unflatten(0, (options.kept_heads, -1, options.width))
    return groups[:, 0].flatten(0, 1)


def _key_heads(layers: Params, heads: int) -> int:
    """How many heads of keys and values there are, as several beside each other may share theirs."""
    kept = torch.cat([layers[f"{name}.weight"].unflatten(0, (heads, -1)) for name in ("key", "value")], dim=1)
    for fewer in range(1, heads):
        if heads % fewer == 0:
            groups = kept.unflatten(0, (fewer, -1))
            if _alike(groups, groups[:, :1].expand_as(groups)):
                return fewer
    return heads


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


def _causal(operands: dict[str, Any]) -> bool | None:
    """Whether a call of attention looks at positions before alone; None where it leaves out others."""
    mask: Tensor | None = operands.get("attn_mask")
    if mask is None:
        return bool(operands.get("is_causal", False))
    seen = mask if mask.dtype == torch.bool else mask == 0
    if mask.dtype != torch.bool and not bool((seen | (mask < -1e4)).all()):
        return None
    if bool(seen.all()):
        return False
    return True if torch.equal(seen, torch.ones_like(seen).tril()) else None


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
    causal: bool | None = field(default=None, init=False)
    """Whether attention is to positions before alone; None: something else is left out."""

    def mixed(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
        """Queries, keys and values, `[n, heads, positions, width]` each; None where there is no one attention."""
        watch = _Watch()
        with watch:
            self.run(features)
        count, seen = len(features), sum(len(query) for query, _, _ in watch.given)
        if not watch.given or seen >= count + len(watch.given[0][0]):
            return None  # none, or several
        self.causal = watch.causal[0] if len({*watch.causal}) == 1 else None
        query, key, value = (torch.cat(tensors)[:count] for tensors in zip(*watch.given, strict=True))
        if query.ndim != 4 or query.shape[-2] != features.shape[1] or query.shape[1] % key.shape[1]:
            return None
        times = query.shape[1] // key.shape[1]
        return query, key.repeat_interleave(times, 1), value.repeat_interleave(times, 1)

    def by_position(self, number: int, rotary: Rotary, features: Tensor) -> Tensor:
        """Queries (0), keys (1) or values (2) before they are turned, `[n, positions, heads × width]`."""
        mixed = self.mixed(features)
        assert mixed is not None
        return rotary.undone(mixed[number]).transpose(1, 2).flatten(2)

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
        self.causal: list[bool | None] = []
        self.norms: list[tuple[Tensor, Tensor] | None] = []
        self.closing: _Closing | None = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        if name == "scaled_dot_product_attention":
            operands = dict(zip(OPERANDS, args, strict=False)) | kwargs
            query, key, value = (operands[operand] for operand in OPERANDS[:3])
            scale = operands.get("scale") or query.shape[-1] ** -0.5
            self.causal.append(_causal(operands))
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
