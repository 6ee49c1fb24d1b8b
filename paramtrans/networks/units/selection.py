"""Which groups of units of a network become smaller, and how many units of each stay."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass

from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from paramtrans.errors import SpecMismatch
from paramtrans.networks.blocks.finding import matches, some_of
from paramtrans.networks.forward.examples import Examples
from paramtrans.networks.graph.groups import Analysis, Bundle, NamedGroup, prove_groups
from paramtrans.networks.graph.inventory import staying_parameters
from paramtrans.networks.graph.propagate import OUTPUT
from paramtrans.networks.graph.residual import residual_classes
from paramtrans.networks.units.query_keys import query_keys, values_of
from paramtrans.networks.units.rounding import Rounding
from paramtrans.networks.units.widths import GroupRule, GroupSizes


@dataclass(frozen=True)
class Asked:
    """What is to become smaller."""

    pattern: str = "*"
    """Patterns of paths, between commas."""
    widths: GroupRule | None = None
    """A rule for how many hidden units stay; None: all of them."""
    stream: float | None = None
    """Share of the width of residual streams that stays; None: all of it."""
    rotate: bool = False
    """Whether streams are rotated into their principal axes first, of which the first stay."""
    query_key: float | None = None
    """Share of the dimensions in which queries and keys are compared that stays; None: all of them."""


@dataclass(frozen=True)
class Selection:
    """Groups that become smaller."""

    counts: Mapping[NamedGroup, int]
    """How many units of each stay."""
    together: tuple[Bundle, ...] = ()
    """Groups that become smaller with each other or not at all."""


def selected(
    analysis: Analysis, asked: Asked, examples: Examples, seed: int, refused: Container[str] = ()
) -> Selection:
    """The groups that become smaller, and how many units of each stay.

    Args:
        analysis: Of the network.
        asked: What is to become smaller.
        examples: Calibration inputs.
        seed: For whatever is drawn.
        refused: Paths of groups of which it is known that they stay.

    Raises:
        SpecMismatch: no group can become smaller as asked.
    """
    counts: dict[NamedGroup, int] = {}
    together: tuple[Bundle, ...] = ()
    pattern, widths, stream = asked.pattern, asked.widths, asked.stream
    if asked.query_key is not None:
        counts, together = _head_dimensions(analysis, pattern, asked.query_key)
    if stream is not None:
        rounding = getattr(widths, "rounding", Rounding())
        counts |= GroupSizes(analysis, streams(analysis, pattern), examples, seed).share(stream, rounding)
    counts = {group: count for group, count in counts.items() if group.path not in refused}
    together = tuple(bundle for bundle in together if all(group in counts for group in bundle))
    if widths is not None:
        groups = [group for group in hidden_groups(analysis, pattern) if group.path not in refused]
        hidden = widths.of_groups(GroupSizes(analysis, groups, examples, seed, counts, together))
        of_groups = isinstance(hidden, Mapping) and hidden and hidden.keys() <= {*groups}
        if not of_groups or any(type(count) is not int or count < 1 for count in hidden.values()):
            raise SpecMismatch("widths: the rule gives no numbers of units for groups (`of_groups`)")
        counts |= hidden
    counts = {group: count for group, count in counts.items() if count < len(group)}
    return Selection(counts, together)


def _head_dimensions(
    analysis: Analysis, pattern: str, share: float
) -> tuple[dict[NamedGroup, int], tuple[Bundle, ...]]:
    """How many dimensions of queries and keys stay, and of values that follow."""
    groups = query_keys(analysis)
    matching = [group for group in groups if matches(group.path, pattern)]
    if not matching:
        needed = "of Linear layers that write no values, and of no normalisation over a head's dimensions"
        reason = f"there are {_paths(groups)}" if groups else f"they have to be {needed}"
        raise SpecMismatch(f'query_key: no heads have queries and keys at "{pattern}" that could be narrower; {reason}')
    return with_values(analysis, {group: group.units.allowed(share * len(group)) for group in matching})


def with_values(
    analysis: Analysis, counts: Mapping[NamedGroup, int]
) -> tuple[dict[NamedGroup, int], tuple[Bundle, ...]]:
    """Where the code has one number for queries and keys and for the values of a head, as many of the values.

    Args:
        analysis: Of the network.
        counts: How many dimensions of queries and keys stay, for each group of these.

    Returns:
        The same with the groups of values that follow, and the groups that become smaller with each other.
    """
    refused = prove_groups(analysis, counts).refused
    bundles = [(group, *values_of(analysis, group)) for group in counts if group.path in refused]
    all_counts = dict(counts)
    for group, *values in bundles:
        all_counts |= {other: other.units.allowed(len(other) * counts[group] / len(group)) for other in values}
    return all_counts, tuple(bundles)


def hidden_groups(analysis: Analysis, pattern: str) -> list[NamedGroup]:
    """Hidden units, and whole heads, whose path matches: the groups that are made smaller by default.

    Args:
        analysis: Of the network.
        pattern: Patterns of paths, between commas.

    Raises:
        SpecMismatch: there are none.
    """
    hidden = [group for group in analysis.groups if group.hidden]
    dimensions = query_keys(analysis, hidden)  # of a network of one head, which is no group of heads
    hidden = [group for group in hidden if group not in dimensions]
    matching = [group for group in hidden if matches(group.path, pattern)]
    if matching:
        return matching
    if hidden:
        raise no_such_group(pattern, hidden)
    stopped = [f"{name} ({where})" if where else name for name, where in analysis.unknown().items()]
    ended_at = f"; labels ended at {', '.join(stopped[:3])}" if stopped else ""
    kind, hint = type(analysis.network).__name__, _hint(analysis)
    raise SpecMismatch(f"the graph of this {kind} shows no hidden units to leave out{ended_at}{hint}")


def _hint(analysis: Analysis) -> str:
    """What may help a network without hidden units that can go."""
    computed = [path for path, module in analysis.network.named_modules() if _is_parametrized(module)]
    if computed and analysis.labelled.unknown:
        ways = "torch.nn.utils.parametrize.remove_parametrizations or remove_weight_norm"
        return f"; weights of {some_of(computed)} are computed from others: make them plain first ({ways})"
    if any(group.stream and not group.inner for group in analysis.groups):
        return "; its residual streams go with stream (--stream)"
    return ""


def _is_parametrized(module: nn.Module) -> bool:
    """Whether a weight of a module is computed from other tensors in each pass."""
    before = (type(hook).__name__ for hook in module._forward_pre_hooks.values())
    return is_parametrized(module) or any(name in ("WeightNorm", "SpectralNorm") for name in before)


def streams(analysis: Analysis, pattern: str) -> list[NamedGroup]:
    """Residual streams whose path matches.

    Args:
        analysis: Of the network, with streams.
        pattern: Patterns of paths, between commas.

    Raises:
        SpecMismatch: there are none.
    """
    residual = [group for group in analysis.groups if group.stream and not group.inner]
    matching = [group for group in residual if matches(group.path, pattern)]
    if matching:
        return matching
    if residual:
        raise SpecMismatch(f'stream: no stream has a path that matches "{pattern}"; there are {_paths(residual)}')
    kind = type(analysis.network).__name__
    if not residual_classes(analysis.labelled, analysis.classes):
        raise SpecMismatch(
            f"stream: this {kind} has no residual stream, as it adds no branch to what that reads; leave it out"
        )
    reasons = staying_parameters(analysis, {}, [group for group in analysis.groups if group.hidden])
    reason = next(iter(reasons), "")
    advice = "put a layer behind it that reads the stream" if reason == OUTPUT else "leave out stream"
    because = f" (most parameters that stay: {reason})" if reason else ""
    raise SpecMismatch(f"stream: this {kind} has no residual stream that can be narrower{because}; {advice}")


def no_such_group(pattern: str, groups: Iterable[NamedGroup]) -> SpecMismatch:
    """The error that the paths of no groups match.

    Args:
        pattern: Patterns of paths, between commas.
        groups: Those that there are.
    """
    return SpecMismatch(f'no group of units has a path that matches "{pattern}"; there are {_paths(groups)}')


def _paths(groups: Iterable[NamedGroup]) -> str:
    return some_of([group.path or "." for group in groups])
