"""`paramtrans inspect`: which units and blocks of a user's own network can become fewer or smaller."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from paramtrans.cli import answer, inputs
from paramtrans.cli.flags import json_flag, plugin_files
from paramtrans.cli.inspect_parts import show_parts
from paramtrans.cli.inspect_units import describe_groups, show_groups, unit_translators
from paramtrans.cli.networks import (
    ARCHITECTURE,
    BLOCKS,
    CAPTURED,
    MODEL,
    architecture_of,
    as_captured,
    columns,
    joined_sizes,
    read_network,
)
from paramtrans.errors import ConfigError, ParamtransError
from paramtrans.utils.counts import counted

if TYPE_CHECKING:
    from paramtrans.networks.blocks.finding import NetworkBlock
    from paramtrans.plugins.registry import Registry

HELD = "holds the blocks to what their adapters say that they compute"
UNITS = "shows units, by which networks are made smaller"
"""What calibration inputs would add to the answer, by blocks and by units."""


@click.command()
@MODEL
@ARCHITECTURE
@CAPTURED
@BLOCKS
@inputs.DATA
@inputs.EXAMPLES
@inputs.LENGTH
@inputs.SEED
@click.option(
    "--by",
    type=click.Choice(["blocks", "units"]),
    help="Units that the graph shows, or blocks that adapters recognise; by default units, with --calibrate.",
)
@click.option("--to", "target", metavar="NAME[?OPTIONS]", help="Parts that this block adapter could take the place of.")
@plugin_files
@json_flag
def inspect(
    model: Path,
    architecture: str | None,
    captured: bool,
    blocks: str,
    data: Path | None,
    examples: int | None,
    length: int | None,
    seed: int,
    by: Literal["blocks", "units"] | None,
    target: str | None,
    as_json: bool,
) -> None:
    """List what of a network can become smaller: groups of units, or blocks.

    With --calibrate, groups of units are listed that the network's graph shows, each held to the proof that the network
    without some of them computes what it does with them at zero; and why the rest of the network stays. With --by
    blocks, in hosts, and without inputs, blocks are listed that adapters recognise. With inputs these are run, and held
    to what their adapters say that they compute.
    With --to, parts are listed that could become blocks of another architecture, and what these would cost there.
    """
    from paramtrans.evaluation.costs import parameters
    from paramtrans.networks.blocks.factories import trained_for
    from paramtrans.networks.blocks.finding import find_blocks
    from paramtrans.networks.forward.activations import check_repeatable
    from paramtrans.networks.forward.batches import as_taken
    from paramtrans.networks.loading.host_network import HostNetwork
    from paramtrans.plugins.manager import components

    registry, architecture = components(), architecture_of(model, architecture)
    network = read_network(model, architecture)
    batches = inputs.read(data, network, architecture, (examples, length, seed))
    network = as_captured(network, batches) if captured else network
    batches = list(as_taken(network, batches, tell=False))
    check_repeatable(network, batches)
    if target is not None:
        show_parts(network, target, blocks, batches, registry, as_json)
        return
    if by == "units" and (not batches or isinstance(network, HostNetwork)):
        raise ConfigError(["--by units: takes --calibrate DATA, and no host of a task"])
    if by == "units" or (by is None and batches and not isinstance(network, HostNetwork)):
        _tell_units(describe_groups(network, blocks, batches) | unit_translators(registry), as_json)
        return
    rows = _blocks(network, blocks, registry, batches)
    closed_forms = _closed_forms(registry)
    if not batches:
        found_blocks = find_blocks(network, registry, blocks)
        closed_forms = [
            name
            for name in closed_forms
            if not found_blocks or any(_takes(block, name, registry) for block in found_blocks)
        ]
    trained = trained_for(network, blocks, registry)
    if as_json:
        answer_document = {
            "parameters": parameters(network),
            "blocks": rows,
            "translators": closed_forms,
            "trained": trained,
        }
        answer.tell(answer_document)
        return
    if rows:
        _print_blocks(rows, parameters(network))
        click.echo(f"translators that need no training: {', '.join(closed_forms)}")
    else:
        click.echo(f"no adapter recognises a block of this network{f' at {blocks}' if blocks != '*' else ''}")
    if rows and all(row["refused"] for row in rows) and not isinstance(network, HostNetwork):
        click.echo("none of these can be translated as a block; --by units goes by the network's graph instead")
    if trained:
        click.echo(f"trained translators for such blocks: {', '.join(trained)}")
    if not data:
        by_blocks = by == "blocks" or isinstance(network, HostNetwork)
        click.echo(f"--calibrate DATA {HELD if by_blocks else UNITS}")


def _print_blocks(rows: list[dict[str, Any]], total: int) -> None:
    """Blocks as columns, and their share of the network's `total` parameters."""
    columns(
        "<<>><",
        ("block", "adapter", "hidden units", "parameters", ""),
        *(
            (
                row["path"] or ".",
                row["adapter"],
                joined_sizes(row["hidden"]),
                f"{row['parameters']:,}",
                f"not to be translated: {row['refused']}" if row["refused"] else "",
            )
            for row in rows
        ),
    )
    click.echo(f"{counted(len(rows), 'block')} with {sum(row['parameters'] for row in rows):,} of {total:,} parameters")


def _tell_units(groups: dict[str, Any], as_json: bool) -> None:
    if as_json:
        answer.tell({**groups, "trained": []})
        return
    show_groups(groups)
    click.echo(f"translators that choose units: {', '.join(groups['translators'])}")
    click.echo(f"that go on from them (--then): {', '.join(groups['then'])}")


def _blocks(network: Any, pattern: str, registry: Registry, batches: list[Any]) -> list[dict[str, Any]]:
    """Blocks that adapters recognise by their layers, held to what these say where there are inputs."""
    from paramtrans.networks.blocks.choosing import held_to_adapters
    from paramtrans.networks.blocks.finding import find_blocks

    recognised = find_blocks(network, registry, pattern)
    refused = held_to_adapters(network, recognised, next(iter(batches), None)).refused
    return [
        {
            "path": block.path,
            "adapter": block.kind,
            "hidden": list(block.sizes.values()),
            "parameters": block.adapter.spec.parameters,
            "refused": refused.get(block.path),
        }
        for block in recognised
    ]


def _closed_forms(registry: Registry) -> list[str]:
    """Translators that need no training."""
    return [name for name, translator in registry.usable("translator") if not translator.learns]


def _takes(block: NetworkBlock, name: str, registry: Registry) -> bool:
    """Whether a translator writes a block of half the width in this one's place."""
    try:
        half = {group: max(1, size // 2) for group, size in block.sizes.items()}
        registry.create("translator", name, block.adapter, block.adapter.with_sizes(half))
    except ParamtransError:
        return False
    return True
