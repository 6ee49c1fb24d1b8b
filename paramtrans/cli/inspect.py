"""`paramtrans inspect`: which blocks of a user's own network can be translated."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from paramtrans.cli import answer, inputs
from paramtrans.cli.flags import json_flag, plugin_files
from paramtrans.cli.networks import ARCHITECTURE, BLOCKS, MODEL, columns, read_network, times
from paramtrans.errors import ParamtransError, PluginLoadError

if TYPE_CHECKING:
    from paramtrans.networks.blocks import NetworkBlock
    from paramtrans.plugins.registry import Registry


@click.command()
@MODEL
@ARCHITECTURE
@BLOCKS
@inputs.DATA
@inputs.EXAMPLES
@inputs.LENGTH
@inputs.SEED
@plugin_files
@json_flag
def inspect(
    model: Path,
    architecture: str,
    blocks: str,
    data: Path | None,
    examples: int | None,
    length: int | None,
    seed: int,
    as_json: bool,
) -> None:
    """List the blocks of a network that can be translated, with adapters, sizes and parameters.

    With --calibrate, blocks are run, and held to what their adapters say that they compute. Where no adapter knows a
    block, groups of units are listed that the network's graph shows, each held to the proof that the network without
    some of them computes what it does with them at zero.
    """
    from paramtrans.evaluation.costs import parameters
    from paramtrans.networks.blocks import find_blocks
    from paramtrans.networks.factories import trained_for
    from paramtrans.networks.host_network import HostNetwork
    from paramtrans.plugins.manager import components

    registry = components()
    network = read_network(model, architecture)
    batches = inputs.read(data, network, architecture, (examples, length, seed))
    rows = _blocks(network, blocks, registry, batches)
    if batches and not rows and not isinstance(network, HostNetwork):
        rows = _groups(network, blocks, batches)
    fixed = _closed_forms(registry)
    if not batches:
        found = find_blocks(network, registry, blocks)
        fixed = [name for name in fixed if not found or any(_takes(block, name, registry) for block in found)]
    trained = trained_for(network, blocks, registry)
    if as_json:
        seen = {"parameters": parameters(network), "blocks": rows, "translators": fixed, "trained": trained}
        answer.tell(seen)
        return
    notes = (f"not to be translated: {row['refused']}" if row["refused"] else "" for row in rows)
    cells = ((row["path"] or ".", row["adapter"], times(row["hidden"]), f"{row['parameters']:,}") for row in rows)
    columns(
        "<<>><",
        ("block", "adapter", "hidden units", "parameters", ""),
        *((*own, note) for own, note in zip(cells, notes, strict=True)),
    )
    click.echo(f"{len(rows)} blocks with {sum(r['parameters'] for r in rows):,} of {parameters(network):,} parameters")
    click.echo(f"translators that need no training: {', '.join(fixed)}")
    if trained:
        click.echo(f"trained translators for such blocks: {', '.join(trained)}")
    if not data:
        click.echo("--calibrate DATA holds the blocks to what their adapters say that they compute")


def _blocks(network: Any, pattern: str, registry: Registry, batches: list[Any]) -> list[dict[str, Any]]:
    """Blocks that adapters recognise by their layers, held to what these say where there are inputs."""
    from paramtrans.networks.blocks import find_blocks, survey

    found = find_blocks(network, registry, pattern)
    refused = dict(survey(network, found, batches[0]).refused) if batches else {}
    return [
        {
            "path": block.path,
            "adapter": block.kind,
            "hidden": list(block.sizes.values()),
            "parameters": block.adapter.spec.parameters,
            "refused": refused.get(block.path),
        }
        for block in found
    ]


def _groups(network: Any, pattern: str, batches: list[Any]) -> list[dict[str, Any]]:
    """Groups of units that the graph shows, with those that stay as they are and why."""
    from paramtrans.networks.blocks import matches
    from paramtrans.networks.graph.groups import analyse, prove_groups
    from paramtrans.networks.narrowing import example_arguments

    analysis = analyse(network, example_arguments(batches[0]))
    groups = [group for group in analysis.groups if not group.inner and matches(group.path, pattern)]
    hidden = {group: group.units.allowed(max(1, len(group) // 2)) for group in groups if not group.stream}
    refused = dict(prove_groups(analysis, hidden).refused)
    refused |= {group.path: "it is a residual stream" for group in groups if group.stream}
    sizes = {name: one.numel() for name, one in network.named_parameters(remove_duplicate=False)}
    return [
        {
            "path": group.path,
            "adapter": group.kind,
            "hidden": [len(group)],
            "parameters": sum(sizes.get(name, 0) for name in group.units.tensors),
            "tensors": list(group.units.tensors),
            "refused": refused.get(group.path),
        }
        for group in groups
    ]


def _closed_forms(registry: Registry) -> list[str]:
    """Translators that need no training; one that cannot be loaded is named, and left out."""
    found = []
    for entry in registry.of_kind("translator"):
        try:
            found += [] if entry.resolve().learns else [entry.name]
        except PluginLoadError as error:
            click.echo(f"left out: {error}", err=True)
    return found


def _takes(block: NetworkBlock, name: str, registry: Registry) -> bool:
    """Whether a translator writes a block of half the width in this one's place."""
    try:
        half = {group: max(1, size // 2) for group, size in block.sizes.items()}
        registry.create("translator", name, block.adapter, block.adapter.with_sizes(half))
    except ParamtransError:
        return False
    return True
