"""`paramtrans inspect`: which blocks of a user's own network can be translated."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from paramtrans.cli import answer
from paramtrans.cli.flags import json_flag, plugin_files
from paramtrans.cli.inputs import DATA, read_inputs
from paramtrans.cli.networks import ARCHITECTURE, BLOCKS, MODEL, columns, read_network, times
from paramtrans.errors import ParamtransError, PluginLoadError

if TYPE_CHECKING:
    from paramtrans.networks.blocks import NetworkBlock
    from paramtrans.plugins.registry import Registry


@click.command()
@MODEL
@ARCHITECTURE
@BLOCKS
@DATA
@plugin_files
@json_flag
def inspect(model: Path, architecture: str, blocks: str, data: Path | None, as_json: bool) -> None:
    """List the blocks of a network that can be translated, with adapters, sizes and parameters.

    With --calibrate, blocks are run, and held to what their adapters say that they compute.
    """
    from paramtrans.evaluation.costs import parameters
    from paramtrans.networks.blocks import find_blocks, survey
    from paramtrans.networks.factories import trained_for
    from paramtrans.plugins.manager import components

    registry = components()
    network = read_network(model, architecture)
    found = find_blocks(network, registry, blocks)
    refused = dict(survey(network, found, read_inputs(data)[0]).refused) if data else {}
    rows: list[dict[str, Any]] = [
        {
            "path": block.path,
            "adapter": block.kind,
            "hidden": list(block.sizes.values()),
            "parameters": block.adapter.spec.parameters,
            "refused": refused.get(block.path),
        }
        for block in found
    ]
    fixed = [name for name in _closed_forms(registry) if not found or any(_takes(b, name, registry) for b in found)]
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
        registry.create("translator", name, block.adapter, block.adapter.narrowed(half))
    except ParamtransError:
        return False
    return True
