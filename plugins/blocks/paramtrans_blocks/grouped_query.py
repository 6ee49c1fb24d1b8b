"""Attention in which several query heads share keys and values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from paramtrans.api.adapter import BlockOptions, Part
from paramtrans.api.options import Trials
from paramtrans.api.stacking import Params
from paramtrans_blocks.attention_target import (
    AttentionTarget,
    AttentionTargetOptions,
    low_rank,
    square_root,
    with_one,
)
from paramtrans_blocks.heads import Heads, HeadsModule
from paramtrans_blocks.positions import from_pairs, pairs


class GroupedQueryOptions(AttentionTargetOptions):
    """Sizes of grouped-query attention. `key_heads` are half of the source's by default, where that divides them."""


class GroupedQuery(AttentionTarget):
    """Multi-head attention with fewer heads of keys and values (Ainslie et al. 2023, arXiv 2305.13245).

    In place of attention it starts from the shared keys and values that lose least: a linear map for each head,
    which goes into its queries and into the last layer, makes its own keys and values of them, as singular vectors say.
    Keys with rotary positions take maps that positions pass through: each pair is one complex number (TransMLA,
    arXiv 2502.07864, section 4, has the same for all heads).
    """

    Options: ClassVar[type[BlockOptions]] = GroupedQueryOptions
    options: GroupedQueryOptions
    trials: ClassVar[Trials] = (
        {"heads": 4, "width": 2},
        {"heads": 3, "width": 2, "key_heads": 1, "bias": False, "skip": "none"},
        {"heads": 2, "width": 2, "closing": 1e-6},
        {"heads": 4, "width": 4, "key_heads": 2, "causal": True, "frequencies": [1.0, 0.1], "skip": "none"},
    )

    @property
    def key_heads(self) -> int:
        """Heads of keys and values."""
        return self.options.key_heads or _half(self.options.heads)

    @classmethod
    def options_for(cls, part: Part) -> Mapping[str, Any]:
        options = dict(super().options_for(part))
        if "heads" in options:
            options["key_heads"] = _half(options["key_heads"] or options["heads"])
        return options

    def module(self) -> HeadsModule:
        return HeadsModule(self.options.model_copy(update={"key_heads": self.key_heads}))

    def from_heads(self, params: Params, heads: Heads, entering: Tensor) -> Params:
        options, names = self.options, ("query", "key", "value")
        layers = {name: _augmented(params, name).unflatten(0, (-1, options.width)) for name in names}
        times = options.heads // heads.options.kept_heads
        shape = (self.key_heads, options.heads // self.key_heads, options.width, -1)
        query, key, value = (
            (tensor if name == "query" else tensor.repeat_interleave(times, 0)).reshape(shape)
            for name, tensor in layers.items()
        )
        root = square_root(with_one(entering))
        shared_key, query = self._shared_keys(key, query, root)
        maps, shared_value = _shared(value, root)
        out = params["out.weight"][0].double().unflatten(-1, shape[:3])
        out = torch.einsum("chgw,hgwv->chgv", out, maps).flatten(1)
        made = {"query": query.flatten(0, 2), "key": shared_key.flatten(0, 1), "value": shared_value.flatten(0, 1)}
        started: Params = {"out.weight": out[None]}
        for name, tensor in made.items():
            started |= {f"{name}.weight": tensor[None, :, :-1], f"{name}.bias": tensor[None, :, -1]}
        return {name: tensor.contiguous() for name, tensor in started.items()}

    def _shared_keys(self, key: Tensor, query: Tensor, root: Tensor) -> tuple[Tensor, Tensor]:
        """Keys `[key_heads, width, in]`, and queries with the maps to each head's own, `[key_heads, group, width, in]`.

        Values of a head that turn with positions are taken pair by pair, as complex numbers; others together.
        """
        turning, neighbours = 2 * len(self.options.frequencies), self.options.neighbours
        keys, queries = [], []
        if turning:
            of_keys, of_queries = (
                torch.complex(*pairs(tensor[:, :, :turning].mT, neighbours)).mT.unsqueeze(3) for tensor in (key, query)
            )  # [key_heads, group, pairs, 1, in]
            maps, shared = _shared(of_keys.transpose(1, 2), root)
            turned = maps.mT.conj() @ of_queries.transpose(1, 2)
            keys.append(_real(shared[:, :, 0], neighbours))
            queries.append(_real(turned[:, :, :, 0].transpose(1, 2), neighbours))
        if turning < self.options.width:
            maps, shared = _shared(key[:, :, turning:], root)
            keys.append(shared)
            queries.append(maps.mT @ query[:, :, turning:])
        return torch.cat(keys, dim=1), torch.cat(queries, dim=2)


def _half(heads: int) -> int:
    return heads // 2 if heads % 2 == 0 else 1


def _augmented(params: Params, layer: str) -> Tensor:
    """Weight and bias of a layer beside each other, `[out, in + 1]`, in double precision."""
    weight = params[f"{layer}.weight"][0].double()
    bias = params[f"{layer}.bias"][0].double() if f"{layer}.bias" in params else weight.new_zeros(len(weight))
    return torch.cat([weight, bias[:, None]], dim=1)


def _real(values: Tensor, neighbours: bool) -> Tensor:
    """Complex pairs as two rows each: `[..., pairs, in]` → `[..., 2 × pairs, in]`."""
    return from_pairs(values.real.mT, values.imag.mT, neighbours).mT


def _shared(weights: Tensor, root: Tensor) -> tuple[Tensor, Tensor]:
    """Of several matrices the one from which linear maps make them with the least error.

    Args:
        weights: `[..., group, width, in]`.
        root: Of the second moments of what enters, `[in, in]`.

    Returns:
        The maps `[..., group, width, width]`, and the matrix `[..., width, in]`.
    """
    stacked = weights.flatten(-3, -2)
    maps, shared = low_rank(stacked, weights.shape[-2], root)
    return maps.unflatten(-2, weights.shape[-3:-1]), shared
