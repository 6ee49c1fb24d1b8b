"""Which groups of units of a network become smaller, and how many units of each stay."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from paramtrans.errors import SpecMismatch
from paramtrans.networks.blocks.finding import matches, some_of
from paramtrans.networks.forward.examples import Examples
from paramtrans.networks.graph.groups import Analysis, NamedGroup
from paramtrans.networks.graph.inventory import staying_parameters
from paramtrans.networks.graph.propagate import OUTPUT
from paramtrans.networks.units.rounding import Rounding
from paramtrans.networks.units.widths import GroupRule, GroupSizes


def chosen_counts(
    analysis: Analysis, pattern: str, widths: GroupRule | None, stream: float | None, examples: Examples, seed: int
) -> dict[NamedGroup, int]:
    """How many units of each group stay, for the groups that become smaller.

    Args:
        analysis: Of the network.
        pattern: Patterns of paths, between commas.
        widths: A rule for hidden units; None: all of them stay.
        stream: Share of the width of residual streams that stays, rounded as the rule rounds; None: all of it.
        examples: Calibration inputs.
        seed: For whatever is drawn.

    Raises:
        SpecMismatch: no group can become smaller as asked.
    """
    counts: dict[NamedGroup, int] = {}
    if stream is not None:
        rounding = getattr(widths, "rounding", Rounding())
        counts |= GroupSizes(analysis, streams(analysis, pattern), examples, seed).share(stream, rounding)
    if widths is not None:
        hidden = widths.of_groups(GroupSizes(analysis, hidden_groups(analysis, pattern), examples, seed, counts))
        if not isinstance(hidden, Mapping) or any(type(count) is not int or count < 1 for count in hidden.values()):
            raise SpecMismatch("widths: the rule gives no numbers of units for groups (`of_groups`)")
        counts |= hidden
    counts = {group: count for group, count in counts.items() if count < len(group)}
    if not counts:
        smaller = "ratio" if stream is None else "share"
        raise SpecMismatch(f"nothing becomes smaller with these widths; give a smaller {smaller}")
    return counts


def hidden_groups(analysis: Analysis, pattern: str) -> list[NamedGroup]:
    """Hidden units, and whole heads, whose path matches: the groups that are made smaller by default.

    Args:
        analysis: Of the network.
        pattern: Patterns of paths, between commas.

    Raises:
        SpecMismatch: there are none.
    """
    hidden = [group for group in analysis.groups if group.hidden]
    matching = [group for group in hidden if matches(group.path, pattern)]
    if matching:
        return matching
    if hidden:
        raise SpecMismatch(f'no group of units has a path that matches "{pattern}"; there are {_paths(hidden)}')
    stopped = [f"{name} ({where})" if where else name for name, where in analysis.unknown().items()]
    ended_at = f"; labels ended at {', '.join(stopped[:3])}" if stopped else ""
    kind = type(analysis.network).__name__
    raise SpecMismatch(
        f"no adapter knows a block of this {kind}, and its graph shows no hidden units to leave out{ended_at}"
    )


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
    reasons = staying_parameters(analysis, {}, [group for group in analysis.groups if group.hidden])
    kind = type(analysis.network).__name__
    reason = next(iter(reasons), "")
    advice = "put a layer behind it that reads the stream" if reason == OUTPUT else "leave out stream"
    because = f" (most parameters that stay: {reason})" if reason else ""
    raise SpecMismatch(f"stream: this {kind} has no residual stream that can be narrower{because}; {advice}")


def _paths(groups: Iterable[NamedGroup]) -> str:
    return some_of([group.path or "." for group in groups])
