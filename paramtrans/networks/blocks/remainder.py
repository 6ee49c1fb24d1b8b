"""What stays of a network beside its blocks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from torch import nn

from paramtrans.evaluation.costs import parameters
from paramtrans.networks.blocks.finding import NetworkBlock
from paramtrans.utils.counts import counted

TOLD = 3
"""Kinds of layers that are told, those of most parameters first."""
MUCH = 0.5
"""Share of the parameters from which it is warned of that they stay."""


def share(network: nn.Module, blocks: Sequence[NetworkBlock]) -> float:
    """The share of a network's parameters that stand in none of these blocks."""
    inside = {
        id(p): p.numel() for b in blocks for path in b.layers.values() for p in network.get_submodule(path).parameters()
    }
    whole = parameters(network)
    return 1 - sum(inside.values()) / whole if whole else 1.0


def warning(network: nn.Module, blocks: Sequence[NetworkBlock]) -> str:
    """How much stays as it is, in which layers, and what may be done."""
    inside = {id(p) for b in blocks for path in b.layers.values() for p in network.get_submodule(path).parameters()}
    counts, sizes = Counter[str](), Counter[str]()
    for layer in network.modules():
        tensors = [*layer.parameters(recurse=False)]
        if any(tensor.ndim > 1 for tensor in tensors) and inside.isdisjoint(id(tensor) for tensor in tensors):
            counts[type(layer).__name__] += 1
            sizes[type(layer).__name__] += parameters(layer)
    layers = ", ".join(f"{name} ×{counts[name]}" for name, _ in sizes.most_common(TOLD))
    staying = f"{share(network, blocks):.0%} of the parameters stay{f': {layers}, in no block' if layers else ''}"
    return f'{counted(len(blocks), "block")}; {staying}; by="units" (--by units) may make more of the network smaller'
