"""What is said of groups of units of which a translated network has fewer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import nn

from paramtrans.networks.graph.groups import Analysis, NamedGroup
from paramtrans.networks.units.query_keys import query_keys

QUERY_KEY = "query_key"
"""The kind of groups whose units are dimensions in which queries and keys are compared."""


@dataclass(frozen=True)
class NarrowedGroup:
    """A group of units of which a translated network has fewer."""

    path: str
    kind: str
    """`units`, `groups` where each has several rows of a layer (heads), `stream`: units of a residual stream, or
    `query_key`: dimensions in which queries and keys are compared."""
    units: tuple[int, int]
    """How many there were, and are."""
    parameters: tuple[int, int]
    """Values of the tensors that they stand in, before and after. A tensor that units of several groups stand in counts
    for the one that it writes, so that rows add up."""
    feature_error: float | None = None
    """Relative reconstruction error: the mean squared change of what the layers give that read the units, or of sums
    that it goes into, over its variance, on examples that nothing was fitted to, behind all that was translated
    before; 1 is as bad as a constant.
    Positions with enormous outputs count as `networks.graph.limits` says.
    None: there are none such, as without inputs, or where a translator goes on from fewer than 32."""
    held_out: bool | None = None
    """Whether that is so; else the examples were too few. None: without inputs, or not known."""
    title: str = ""
    """What it is called in tables and messages, where that is more than its path."""


def narrowed_groups(
    analysis: Analysis,
    counts: Mapping[NamedGroup, int],
    errors: Mapping[NamedGroup, float],
    held_out: bool,
    network: nn.Module,
    small: nn.Module,
) -> tuple[NarrowedGroup, ...]:
    """The records of groups of which a network has fewer units.

    Args:
        analysis: Of the network.
        counts: How many units of each group stay.
        errors: The relative reconstruction error of each, where it is known.
        held_out: Whether these are of examples that nothing was fitted to.
        network: The network.
        small: The smaller one.
    """
    counted_for = _counted_for(analysis, counts)
    params = [dict(side.named_parameters(remove_duplicate=False)) for side in (network, small)]
    kinds = kinds_of(analysis, counts)
    records = []
    for group, count in counts.items():
        names = [name for name in group.units.tensors if counted_for[name] is group and name in params[0]]
        before, after = (sum(tensors[name].numel() for name in names) for tensors in params)
        kind, error = kinds[group], errors.get(group)
        title = title_of(group, kind)
        records.append(NarrowedGroup(group.path, kind, (len(group), count), (before, after), error, held_out, title))
    return tuple(records)


def kinds_of(analysis: Analysis, groups: Iterable[NamedGroup]) -> dict[NamedGroup, str]:
    """What the units of each group are, in a word."""
    dimensions = query_keys(analysis, groups)
    return {group: QUERY_KEY if group in dimensions else group.kind for group in groups}


def title_of(group: NamedGroup, kind: str) -> str:
    """What a group is called in tables and messages."""
    return f"queries and keys ({group.path})" if kind == QUERY_KEY and group.path else group.title


def _counted_for(analysis: Analysis, groups: Iterable[NamedGroup]) -> dict[str, NamedGroup]:
    """For each tensor the group whose row it counts in: one that it writes, and of a head and its dimensions these."""
    counted_for: dict[str, NamedGroup] = {}
    for group in sorted(groups, key=len):
        for axis in group.units.axes:
            read = (axis.tensor, axis.axis) in analysis.program.summed_axes
            if not read or axis.tensor not in counted_for:
                counted_for[axis.tensor] = group
    return counted_for
