"""What a network consists of: operations of each group of units, and why the rest of the parameters stays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor
from torch.fx import Node
from torch.utils._pytree import tree_map

from paramtrans.evaluation.costs import operations
from paramtrans.networks.graph.groups import Analysis, NamedGroup
from paramtrans.networks.graph.labels import PINNED
from paramtrans.networks.graph.propagate import HOOK, OUTPUT

STREAM = "a residual stream, which stays as wide as it is"
TOGETHER = "computed over as a whole, as a LayerNorm does"
TIED = "tied to what stays"


def operations_of(analysis: Analysis, groups: Iterable[NamedGroup], examples: int) -> dict[NamedGroup, int]:
    """Operations that one example takes in the layers that each group stands in, as PyTorch counts them.

    Args:
        analysis: What the network consists of.
        groups: Some of its groups.
        examples: How many it was captured with.
    """
    names = analysis.program.names
    counted: dict[Node, int] = {}
    for node in analysis.program.nodes:
        if node.op == "call_function" and any(one.name in names for one in node.all_input_nodes):
            counted[node] = _operations(node)
    found = {}
    for group in groups:
        tensors = {*group.units.tensors}
        own = [n for node, n in counted.items() if any(names.get(one.name) in tensors for one in node.all_input_nodes)]
        found[group] = sum(own) // max(1, examples)
    return found


def _operations(node: Node) -> int:
    def empty(one: Any) -> Any:
        value = one.meta.get("val") if isinstance(one, Node) else one
        return torch.empty(tuple(value.shape), dtype=value.dtype, device="meta") if isinstance(value, Tensor) else value

    args, kwargs = tree_map(empty, (node.args, dict(node.kwargs)), is_leaf=lambda one: isinstance(one, Node))
    with torch.no_grad():
        return operations(lambda: node.target(*args, **kwargs), node.name) or 0  # type: ignore[operator]


def staying(analysis: Analysis, refused: Mapping[NamedGroup, str], goes: Iterable[NamedGroup]) -> dict[str, int]:
    """Parameters that stay as they are, by reason, the most first.

    Args:
        analysis: What the network consists of.
        refused: Groups that cannot be made smaller, with the reason of each.
        goes: Groups that can.
    """
    free = {name for group in goes for name in group.units.tensors}
    told = {name: reason for group, reason in refused.items() for name in group.units.tensors}
    streams = {name for group in analysis.groups if group.stream for name in group.units.tensors}
    origins = _origins(analysis)
    found: Counter[str] = Counter()
    for name, parameter in analysis.network.named_parameters():
        if name in free:
            continue
        reason = told.get(name) or (STREAM if name in streams else _reason(analysis, name, origins))
        found[reason] += parameter.numel()
    return dict(found.most_common())


Origins = tuple[np.ndarray, dict[int, list[str]]]
"""For each atom what it goes with, pinned atoms aside; and for each of these what pinned it."""


def _origins(analysis: Analysis) -> Origins:
    facts = analysis.labelled.facts
    pairs = [(one.numpy(), other.numpy()) for one, other in facts.equal]
    first, second = (np.concatenate([pair[i] for pair in pairs] or [np.zeros(0, int)]) for i in range(2))
    apart = (first != PINNED) & (second != PINNED)
    first, second = first[apart], second[apart]
    graph = coo_matrix((np.ones(len(first), bool), (first, second)), (facts.count, facts.count))
    of = connected_components(graph, directed=False)[1]
    reasons: dict[int, list[str]] = {}
    for atoms, reason in facts.pinned:
        for one in of[atoms.numpy()].tolist():
            reasons.setdefault(one, []).append(reason)
    return of, reasons


def _reason(analysis: Analysis, name: str, origins: Origins) -> str:
    """Why a tensor is in no group of units that can be made smaller."""
    of, reasons = origins
    axes = [atoms.numpy() for atoms in analysis.labelled.axes.get(name, []) if len(atoms) > 1]
    if not axes:
        return "not used in this pass, or of one unit"
    told = [reason for atoms in axes for one in of[atoms].tolist() for reason in reasons.get(one, ())]
    for known in (OUTPUT, HOOK):
        if known in told:
            return known
    if any(len(np.unique(of[atoms])) == 1 for atoms in axes):
        return TOGETHER
    unknown = [reason for reason in told if reason in analysis.labelled.unknown]
    if unknown:
        return f"nothing is known of {unknown[0]}"
    return f"{told[0]} takes all of it" if told else TIED
