"""What `inspect` says of groups of units that a network's graph shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from paramtrans.cli.networks import columns
from paramtrans.utils.counts import counted

if TYPE_CHECKING:
    from paramtrans.networks.graph.groups import Analysis, NamedGroup
    from paramtrans.plugins.registry import Registry

REASONS = 6
"""Reasons that are printed, at most; those of most parameters come first."""


def describe_groups(network: Any, pattern: str, batches: list[Any]) -> dict[str, Any]:
    """Groups of units, with the tensors that they stand in, and the parameters that stay by reason.

    Args:
        network: In eval mode.
        pattern: Patterns of the paths of groups, between commas.
        batches: Calibration inputs.

    Returns:
        The fields `parameters`, `blocks`, `stays` and, where something may help, `advice` of the answer.

    Raises:
        SpecMismatch: there are groups, and the path of none matches.
    """
    from paramtrans.evaluation.costs import parameters
    from paramtrans.networks.blocks.finding import matches
    from paramtrans.networks.forward.activations import first_examples, length
    from paramtrans.networks.graph.groups import analyse
    from paramtrans.networks.graph.inventory import LEFT_OUT, QUERY_KEY, STREAM, operations_of, staying_parameters
    from paramtrans.networks.graph.proof import advice
    from paramtrans.networks.units.narrowed import kinds_of, title_of
    from paramtrans.networks.units.narrowing import example_arguments
    from paramtrans.networks.units.selection import no_such_group

    analysis = analyse(network, example_arguments(batches[0]), stream=True)
    kinds = kinds_of(analysis, analysis.groups)
    shown = [group for group in analysis.groups if _is_shown(group, kinds[group])]
    groups = [group for group in shown if matches(group.path, pattern)]
    if shown and not groups:
        raise no_such_group(pattern, shown)
    failed = _failed(analysis, {group: kinds[group] for group in groups})
    flops = operations_of(analysis, groups, length(first_examples(batches[0], 2)))
    sizes = {name: parameter.numel() for name, parameter in network.named_parameters(remove_duplicate=False)}
    on_request = {"stream": STREAM, "query_key": QUERY_KEY}
    rows = [
        {
            "path": group.path,
            "title": title_of(group, kinds[group]),
            "adapter": kinds[group],
            "hidden": [len(group)],
            "parameters": sum(sizes.get(name, 0) for name in group.units.tensors),
            "flops": flops[group],
            "tensors": list(group.units.tensors),
            "refused": failed.get(group, on_request.get(kinds[group])),
        }
        for group in groups
    ]
    free = [group for group in groups if kinds[group] not in on_request and group not in failed]
    left_out = {g: LEFT_OUT for g in shown if g not in flops and kinds[g] not in on_request}
    staying = staying_parameters(analysis, left_out | failed, free)
    document = {"parameters": parameters(network), "blocks": rows, "stays": staying}
    hint = advice(network, failed.values())
    return document | ({"advice": hint} if hint else {})


def _is_shown(group: NamedGroup, kind: str) -> bool:
    """Whether a group is made smaller by default or on request; values of heads go with what they belong to."""
    return group.hidden or (group.stream and not group.inner) or kind == "query_key"


def _failed(analysis: Analysis, kinds: dict[NamedGroup, str]) -> dict[NamedGroup, str]:
    """Groups of which half of the units cannot go, with the reason of each; those on request are tried apart."""
    from paramtrans.networks.graph.groups import prove_groups
    from paramtrans.networks.units.selection import with_values

    half = {group: group.units.allowed(max(1, len(group) // 2)) for group in kinds}
    by_request: dict[str, dict[NamedGroup, int]] = {"stream": {}, "query_key": {}, "hidden": {}}
    for group, kind in kinds.items():
        by_request[kind if kind in by_request else "hidden"][group] = half[group]
    dimensions, bundles = with_values(analysis, by_request["query_key"])
    refused = prove_groups(analysis, by_request["hidden"]).refused | prove_groups(analysis, dimensions, bundles).refused
    refused |= prove_groups(analysis, by_request["stream"]).refused
    return {group: refused[group.path] for group in kinds if group.path in refused}


def show_groups(groups: dict[str, Any]) -> None:
    """Print what `describe_groups` gives, as columns and sentences."""
    cells = (
        (
            row["path"] or ".",
            row["adapter"].replace("_", "-"),
            str(row["hidden"][0]),
            f"{row['parameters']:,}",
            f"{row['flops']:,}",
            _layers(row),
            _note(row["refused"]),
        )
        for row in groups["blocks"]
    )
    columns("<<>>><<", ("group", "kind", "units", "parameters", "flops", "tied together", ""), *cells)
    total, staying = max(1, groups["parameters"]), sum(groups["stays"].values())
    narrowable = sum(not row["refused"] for row in groups["blocks"])
    in_layers = f"{counted(narrowable, 'group')} in layers with {total - staying:,} of {total:,} parameters"
    click.echo(f"{in_layers}; {staying / total:.0%} stay:")
    reasons = list(groups["stays"].items())
    for reason, count in reasons[:REASONS]:
        click.echo(f"  {count / total:.1%}  {reason}")
    if more := sum(count for _, count in reasons[REASONS:]):
        click.echo(f"  {more / total:.1%}  {counted(len(reasons) - REASONS, 'other reason')}")
    if "advice" in groups:
        click.echo(groups["advice"])


def unit_translators(registry: Registry) -> dict[str, list[str]]:
    """Translators that choose units, and those that go on from them: `translators` and `then` of the answer."""
    from paramtrans.networks.units import chain

    choosing, going_on = chain.unit_translators(registry)
    return {"translators": choosing, "then": going_on}


def _note(refused: str | None) -> str:
    """Why a group is not made smaller by default."""
    from paramtrans.networks.graph.inventory import QUERY_KEY, STREAM

    return refused or "" if refused in (None, STREAM, QUERY_KEY) else f"not to be translated: {refused}"


def _layers(row: dict[str, Any]) -> str:
    """The modules that hold a group's tensors, their common path left out."""
    layers = list(dict.fromkeys(name.rpartition(".")[0] or name for name in row["tensors"]))
    start = f"{row['path']}."
    names = [layer.removeprefix(start) for layer in layers]
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
