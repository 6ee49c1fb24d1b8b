"""What a network consists of: operations of each group of units, and why the rest of the parameters stays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor, nn
from torch.fx import Node
from torch.utils._pytree import tree_map

from paramtrans.evaluation.costs import operations
from paramtrans.networks.graph.capture import used_tensors
from paramtrans.networks.graph.groups import Analysis, NamedGroup
from paramtrans.networks.graph.labels import PINNED
from paramtrans.networks.graph.propagate import HOOK, OUTPUT

STREAM = "a residual stream, which goes with --stream alone"
QUERY_KEY = "dimensions of queries and keys, which go with --query-key alone"
TOGETHER = "computed over as a whole, as a LayerNorm does"
TIED = "tied to what stays"
LEFT_OUT = "of groups that --blocks leaves out"
UNUSED = "no output depends on it"


def operations_of(analysis: Analysis, groups: Iterable[NamedGroup], examples: int) -> dict[NamedGroup, int]:
    """Operations that one example takes in the layers that each group stands in, as PyTorch counts them.

    Args:
        analysis: Of the network.
        groups: Some of its groups.
        examples: How many examples the network was captured with.
    """
    names = analysis.program.names
    counted: dict[Node, int] = {}
    for node in analysis.program.nodes:
        if node.op == "call_function" and any(operand.name in names for operand in node.all_input_nodes):
            counted[node] = _operations(node)
    totals = {}
    for group in groups:
        tensors = {*group.units.tensors}
        layer_operations = [
            n
            for node, n in counted.items()
            if any(names.get(operand.name) in tensors for operand in node.all_input_nodes)
        ]
        totals[group] = sum(layer_operations) // max(1, examples)
    return totals


def _operations(node: Node) -> int:
    def empty(argument: Any) -> Any:
        value = argument.meta.get("val") if isinstance(argument, Node) else argument
        if isinstance(value, torch.device):
            return torch.device("meta")
        return torch.empty(tuple(value.shape), dtype=value.dtype, device="meta") if isinstance(value, Tensor) else value

    args, kwargs = tree_map(empty, (node.args, dict(node.kwargs)), is_leaf=lambda argument: isinstance(argument, Node))
    with torch.no_grad():
        return operations(lambda: node.target(*args, **kwargs), node.name) or 0  # type: ignore[operator]


def staying_parameters(
    analysis: Analysis, refused: Mapping[NamedGroup, str], narrowable: Iterable[NamedGroup]
) -> dict[str, int]:
    """Parameters that stay as they are, by reason, the most first.

    Args:
        analysis: Of the network.
        refused: Groups that cannot be made smaller, with the reason of each.
        narrowable: Groups that can.
    """
    narrowable_tensors = {name for group in narrowable for name in group.units.tensors}
    reasons = {name: reason for group, reason in refused.items() for name in group.units.tensors}
    streams = {name for group in analysis.groups if group.stream for name in group.units.tensors}
    normalised = {name for group in analysis.groups if group.normalised for name in group.units.tensors} - streams
    origins, used = _origins(analysis), used_tensors(analysis.program)
    counts: Counter[str] = Counter()
    for name, parameter in analysis.network.named_parameters():
        if name in narrowable_tensors:
            continue
        together = TOGETHER if name in normalised else _reason(analysis, name, origins, used)
        reason = reasons.get(name) or (STREAM if name in streams else together)
        counts[reason] += parameter.numel()
    return dict(counts.most_common())


def training_layers(analysis: Analysis, small: nn.Module) -> list[str]:
    """Layers that no output depends on in eval mode, and that take as many features as somewhere became fewer.

    Args:
        analysis: Of the network.
        small: The smaller network, in which such layers are as they were.
    """
    used, after = used_tensors(analysis.program), dict(small.named_parameters())
    before = {name: p for name, p in analysis.network.named_parameters() if name in after}
    sizes = [pair for name, p in before.items() for pair in zip(p.shape, after[name].shape, strict=True)]
    fewer = {size for size, size_after in sizes if size_after < size}
    unused = {name: p for name, p in before.items() if name not in used and p.shape == after[name].shape}
    return [name.rpartition(".")[0] for name, p in unused.items() if p.ndim > 1 and p.shape[1] in fewer]


Origins = tuple[np.ndarray, dict[int, list[str]]]
"""For each atom what it goes with, pinned atoms aside; and for each of these what pinned it."""


def _origins(analysis: Analysis) -> Origins:
    facts = analysis.labelled.facts
    pairs = [(atoms.numpy(), equal_atoms.numpy()) for atoms, equal_atoms in facts.equal]
    left, right = (np.concatenate([pair[i] for pair in pairs] or [np.zeros(0, int)]) for i in range(2))
    apart = (left != PINNED) & (right != PINNED)
    left, right = left[apart], right[apart]
    graph = coo_matrix((np.ones(len(left), bool), (left, right)), (facts.count, facts.count))
    of = connected_components(graph, directed=False)[1]
    reasons: dict[int, list[str]] = {}
    for atoms, reason in facts.pinned:
        for component in of[atoms.numpy()].tolist():
            reasons.setdefault(component, []).append(reason)
    return of, reasons


def _reason(analysis: Analysis, name: str, origins: Origins, used: Collection[str]) -> str:
    """Why a tensor is in no group of units that can be made smaller."""
    of, reasons = origins
    axes = [atoms.numpy() for atoms in analysis.labelled.axes.get(name, []) if len(atoms) > 1]
    if not axes:
        return UNUSED if name not in used else "of one unit"
    pinned_by = [reason for atoms in axes for origin in of[atoms].tolist() for reason in reasons.get(origin, ())]
    for certain in (OUTPUT, HOOK):
        if certain in pinned_by:
            return certain
    if name not in used:
        return UNUSED
    if any(len(np.unique(of[atoms])) == 1 for atoms in axes):
        return TOGETHER
    unknown = [reason for reason in pinned_by if reason in analysis.labelled.unknown]
    if unknown:
        return f"nothing is known of {unknown[0]}"
    return f"{pinned_by[0]} takes all of it" if pinned_by else TIED
