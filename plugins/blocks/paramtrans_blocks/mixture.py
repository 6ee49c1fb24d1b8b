"""A feed-forward block as a mixture of experts, of which each position asks a few."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
from pydantic import PositiveInt, model_validator
from torch import Tensor, nn
from torch.func import debug_unwrap

from paramtrans.api.adapter import BlockAdapter, BlockOptions, Part
from paramtrans.api.options import Trials
from paramtrans.api.stacking import Params
from paramtrans.errors import SpecMismatch
from paramtrans_blocks.activations import MAKERS, Activation
from paramtrans_blocks.solved import solved_layer
from paramtrans_blocks.source_feed_forward import FeedForward, Layer, feed_forward_of

ROUNDS = 8
"""In which units are shared out among experts anew."""


class MixtureOptions(BlockOptions):
    """Sizes of a mixture of experts."""

    out: PositiveInt | None = None
    """Channels that leave it; as many as enter it by default."""
    hidden: PositiveInt | None = None
    """Units of all experts together; twice as many as channels by default."""
    experts: PositiveInt = 4
    """Experts, of as many units each."""
    active: PositiveInt = 2
    """Experts that each position asks."""
    gated: bool = False
    """Whether units are multiplied by gates (SwiGLU)."""
    activation: Activation = "silu"
    """Of the units, or of their gates."""
    bias: bool = False
    """Whether the layers have biases."""

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if (self.hidden or 2 * self.channels) % self.experts:
            raise ValueError(f"experts: {self.hidden or 2 * self.channels} units cannot be shared out evenly")
        if self.active > self.experts:
            raise ValueError(f"active: there are {self.experts} experts, not {self.active}")
        return self


class Mixture(BlockAdapter):
    """Σ over the experts that the router puts first of W₂ act(W₁ x), or of W₃ (act(W₁ x) · W₂ x).

    In place of a feed-forward block each of its units goes to one expert, beside those that work at the same positions,
    and a linear router is solved for how much each expert gives (MoEfication: Zhang et al. 2022, arXiv 2110.01786,
    section 3). With all experts active it is that block.
    """

    Options: ClassVar[type[BlockOptions]] = MixtureOptions
    options: MixtureOptions
    trials: ClassVar[Trials] = (
        {},
        {"hidden": 6, "experts": 3, "active": 1, "gated": True, "activation": "gelu", "bias": True},
    )
    channels_last: ClassVar[bool] = True
    positionwise: ClassVar[bool] = True

    @classmethod
    def options_for(cls, part: Part) -> Mapping[str, Any]:
        source = feed_forward_of(part)
        if source is None:
            raise SpecMismatch("what it computes is not read off as a feed-forward block (linear, activation, linear)")
        return {
            "channels": part.entering.shape[-1],
            "out": part.leaving.shape[-1],
            "hidden": len(source.first.weight),
            "gated": source.up is not None,
            "activation": source.activation,
            "bias": source.bias,
        }

    @property
    def hidden(self) -> int:
        """Units of all experts."""
        return self.options.hidden or 2 * self.options.channels

    def module(self) -> nn.Module:
        return MixtureModule(self.options, self.hidden)

    @torch.no_grad()
    def warm_start(self, part: Part) -> Params | None:
        source, options = feed_forward_of(part), self.options
        if source is None or (len(source.first.weight), source.up is not None, source.activation, source.bias) != (
            self.hidden,
            options.gated,
            options.activation,
            options.bias,
        ):
            return None
        source = source.units(shared_out(source, part.entering, options.experts))
        layers: dict[str, Layer] = {"first": source.first, "down": source.down}
        if source.up is not None:
            layers["up"] = source.up
        state = {f"{name}.weight": layer.weight for name, layer in layers.items()}
        if options.bias:
            state |= {f"{name}.bias": layer.offset for name, layer in layers.items()}
        gives = _gives(source, part.entering, options.experts)
        nothing = part.entering.new_zeros(options.experts, options.channels)
        weight, bias = solved_layer(part.entering, gives, nothing, gives.flatten(0, -2).mean(0))
        assert bias is not None
        state |= {"router.weight": weight, "router.bias": bias, "gain": torch.zeros(options.experts)}
        return {name: state[name][None].to(part.entering).contiguous() for name in self.spec.names}


class MixtureModule(nn.Module):
    """`[..., channels]` → `[..., out]`. Units of an expert stand behind each other.

    Without gradients only the experts that are asked are computed.
    """

    def __init__(self, options: MixtureOptions, hidden: int) -> None:
        super().__init__()
        channels, bias = options.channels, options.bias
        self.experts, self.active = options.experts, options.active
        self.first = nn.Linear(channels, hidden, bias)
        self.up = nn.Linear(channels, hidden, bias) if options.gated else None
        self.activation = MAKERS[options.activation]()
        self.down = nn.Linear(hidden, options.out or channels, bias)
        self.router = nn.Linear(channels, options.experts)
        self.gain = nn.Parameter(torch.zeros(options.experts))
        """By how much what an expert gives follows the router; at first not at all."""

    def forward(self, x: Tensor) -> Tensor:
        weights = self._weights(self.router(x))
        if torch.is_grad_enabled() or not _has_numbers(x):
            units = self._units(x, slice(None)).unflatten(-1, (self.experts, -1))
            features: Tensor = self.down((units * weights[..., None]).flatten(-2))
            return features
        return self._asked_alone(x, weights)

    def _weights(self, scores: Tensor) -> Tensor:
        """What each expert counts, `[..., experts]`: nothing but for the highest scores."""
        highest = scores.topk(self.active, dim=-1).indices
        asked = torch.zeros_like(scores).scatter(-1, highest, 1.0)
        return asked * (1 + self.gain * scores.tanh())

    def _units(self, x: Tensor, chosen: slice) -> Tensor:
        """Hidden units, `[..., units]`."""
        first, up = self.first, self.up
        units: Tensor = self.activation(linear(x, first, chosen))
        return units if up is None else units * linear(x, up, chosen)

    def _asked_alone(self, x: Tensor, weights: Tensor) -> Tensor:
        rows, counts = x.flatten(0, -2), weights.flatten(0, -2)
        out = len(self.down.weight)
        bias: Tensor | None = self.down.bias
        features = (rows.new_zeros(out) if bias is None else bias).expand(len(rows), out).clone()
        size = self.down.in_features // self.experts
        for number in range(self.experts):
            asking = counts[:, number].nonzero()[:, 0]
            chosen = slice(number * size, (number + 1) * size)
            units = self._units(rows[asking], chosen) * counts[asking, number, None]
            features.index_add_(0, asking, units @ self.down.weight[:, chosen].mT)
        return features.view(*x.shape[:-1], out)


def _has_numbers(x: Tensor) -> bool:
    """Whether code may follow the values of a tensor: not while it is traced, mapped over models, or on no device."""
    return not (x.is_meta or torch.compiler.is_compiling() or debug_unwrap(x) is not x)


def linear(x: Tensor, layer: nn.Linear, chosen: slice) -> Tensor:
    """Some outputs of a layer."""
    bias = None if layer.bias is None else layer.bias[chosen]
    return nn.functional.linear(x, layer.weight[chosen], bias)


def shared_out(source: FeedForward, entering: Tensor, experts: int) -> Tensor:
    """An order of the units in which those of each expert stand together: balanced k-means of where they work.

    Args:
        source: The block.
        entering: What enters it, `[examples, ..., channels]`.
        experts: How many.

    Returns:
        Numbers of the units, `[units]`.
    """
    work = source.hidden(entering).flatten(0, -2).double().abs().mT * source.down.weight.double().norm(dim=0)[:, None]
    work = nn.functional.normalize(work, dim=1)
    size = len(work) // experts
    order = (work @ work[0]).argsort(descending=True)
    for _ in range(ROUNDS):
        centres = nn.functional.normalize(work[order].unflatten(0, (experts, size)).mean(1), dim=1)
        order = _balanced(work @ centres.mT, size)
    return order


def _balanced(likeness: Tensor, size: int) -> Tensor:
    """Units by expert, `size` to each: those with most to lose choose first."""
    best, second = likeness.topk(min(2, likeness.shape[1]), dim=1).values[:, [0, -1]].unbind(1)
    room, members = [size] * likeness.shape[1], [list[int]() for _ in range(likeness.shape[1])]
    for unit in (best - second).argsort(descending=True).tolist():
        wanted = likeness[unit].argsort(descending=True).tolist()
        expert = next(number for number in wanted if room[number])
        room[expert] -= 1
        members[expert].append(unit)
    return torch.tensor([unit for units in members for unit in sorted(units)], device=likeness.device)


def _gives(source: FeedForward, entering: Tensor, experts: int) -> Tensor:
    """How much each expert adds at each position, `[..., experts]`: the logarithm of its norm, among the experts'."""
    units = source.hidden(entering).unflatten(-1, (experts, -1))
    weights = source.down.weight.unflatten(-1, (experts, -1))
    norms = torch.einsum("...eu,oeu->...eo", units, weights).norm(dim=-1)
    return torch.log(norms + 1e-3 * norms.mean())
