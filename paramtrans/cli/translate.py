"""`paramtrans translate` and `paramtrans inspect`: a user's own network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from paramtrans.cli.flags import json_flag, plugin_files, quiet_flag
from paramtrans.cli.inputs import DATA, PROBES, SHAPE, drawn, read_inputs, shape_of_made_up
from paramtrans.errors import ConfigError

MODEL = click.argument("model", metavar="MODEL", type=click.Path(path_type=Path))
ARCHITECTURE = click.option(
    "--arch", "architecture", required=True, metavar="torchvision:NAME|FILE.py:FACTORY", help="What makes the network."
)
BLOCKS = click.option("--blocks", default="*", metavar="PATTERN", help="Paths of blocks, with * and between commas.")


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
    from paramtrans.network import find_blocks, parameters, survey
    from paramtrans.plugins import components

    registry = components()
    network = _network(model, architecture)
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
    fixed = [entry.name for entry in registry.of_kind("translator") if not entry.resolve().learns]
    if as_json:
        total = parameters(network)
        click.echo(json.dumps({"parameters": total, "blocks": rows, "translators": fixed}, ensure_ascii=False))
        return
    notes = (f"not to be translated: {row['refused']}" if row["refused"] else "" for row in rows)
    cells = ((row["path"] or ".", row["adapter"], _times(row["hidden"]), f"{row['parameters']:,}") for row in rows)
    _columns(
        "<<>><",
        ("block", "adapter", "hidden units", "parameters", ""),
        *((*own, note) for own, note in zip(cells, notes, strict=True)),
    )
    click.echo(f"{len(rows)} blocks with {sum(r['parameters'] for r in rows):,} of {parameters(network):,} parameters")
    click.echo(f"translators that need no training: {', '.join(fixed)}")
    if not data:
        click.echo("--calibrate DATA holds the blocks to what their adapters say that they compute")


@click.command()
@MODEL
@ARCHITECTURE
@click.option("--with", "translator", default="refit", show_default=True, metavar="NAME|FOLDER", help="A translator.")
@click.option("--then", multiple=True, metavar="NAME", help="A translator that goes on from what the last one wrote.")
@click.option(
    "--option",
    "settings",
    multiple=True,
    metavar="NAME=VALUE",
    help="An option of the translator; of one that goes on, or of probes: THEIRS.NAME=VALUE.",
)
@BLOCKS
@click.option("--ratio", type=float, help="Share of the hidden units that stay; 0.5 by default.")
@click.option("--parameters", "budget", type=int, help="Instead of --ratio: parameters that the network may have.")
@click.option("--flops", type=int, help="Instead of --ratio: operations that one example may take.")
@click.option(
    "--measured", is_flag=True, help="With --parameters: take most units where that is measured to harm least."
)
@click.option("--independent", is_flag=True, help="Translate each block as if it were the only one.")
@DATA
@PROBES
@SHAPE
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Where the small network goes.")
@plugin_files
@quiet_flag
@json_flag
def translate(
    model: Path,
    architecture: str,
    translator: str,
    then: tuple[str, ...],
    settings: tuple[str, ...],
    blocks: str,
    ratio: float | None,
    budget: int | None,
    flops: int | None,
    measured: bool,
    independent: bool,
    data: Path | None,
    probes: str | None,
    shape: str | None,
    output: Path,
    quiet: bool,
    as_json: bool,
) -> None:
    """Translate the blocks of a network to smaller ones; write its parameters, and beside them how to rebuild it."""
    from rich.console import Console

    from paramtrans.network import costs, output_error
    from paramtrans.progress import ConsoleReporter, Reporter
    from paramtrans.translated import ATTRIBUTE, save_translated
    from paramtrans.translation import translate as translate_network

    if output.suffix != ".safetensors":
        raise ConfigError([f"-o {output}: must end in .safetensors"])
    options, going_on = _settings(settings, (*then, *([probes] if probes else [])))
    made_up = shape_of_made_up(probes, shape, data)
    chosen = Path(translator) if Path(translator).is_dir() else translator
    widths = _widths(ratio, budget, flops, (chosen, options) if measured else None)
    network = _network(model, architecture)
    batches = read_inputs(data) if data else []
    if probes and made_up:
        batches = drawn(network, probes, made_up, going_on.pop(probes))
    small = translate_network(
        network,
        chosen,
        widths=widths,
        blocks=blocks,
        calibrate=batches,
        options=options,
        then=going_on,
        sequential=not independent,
        reporter=Reporter() if quiet else ConsoleReporter(Console(stderr=True)),
    )
    save_translated(small, output, architecture)
    before, after = (costs(one, batches[0] if batches else None) for one in (network, small))
    made = [
        {
            "path": block.path,
            "hidden": [_hidden(block.kind, options) for options in (block.source, block.target)],
            "feature_error": block.feature_error,
        }
        for block in getattr(small, ATTRIBUTE)
    ]
    whole = output_error(network, small, batches)
    if as_json:
        found = {"output": str(output), "before": before, "after": after, "blocks": made, "output_error": whole}
        click.echo(json.dumps(found))
        return
    _columns(
        "<<>",
        ("block", "hidden units", "feature error"),
        *((one["path"] or ".", " → ".join(map(_times, one["hidden"])), _error(one["feature_error"])) for one in made),
        ("output of the network", "", _error(whole)),
    )
    _columns(
        "<>>>",
        ("", "before", "after", ""),
        *((name, f"{n:,}", f"{after[name]:,}", f"{after[name] / max(1, n):.0%}") for name, n in before.items()),
    )
    if probes:
        click.echo("errors are those on made-up inputs; on real ones they may be much larger")
    if not batches:
        click.echo("with --calibrate DATA, how good the blocks come out is predicted")
    click.echo(f"{output}: rebuild it by paramtrans.load_translated")


def _network(model: Path, architecture: str) -> Any:
    from paramtrans import models

    return models.with_parameters(models.build(architecture), model).eval()


def _widths(
    ratio: float | None, parameters: int | None, flops: int | None, measured_by: tuple[Any, dict[str, Any]] | None
) -> Any:
    """The rule for widths; raises `ConfigError` where it is unclear which. `measured_by`: a translator, its options."""
    from paramtrans.allotment import Allotment
    from paramtrans.widths import Budget, FlopBudget, Ratio

    if sum(given is not None for given in (ratio, parameters, flops)) > 1:
        raise ConfigError(["--ratio, --parameters and --flops: give one of them"])
    if measured_by is not None:
        if parameters is None:
            raise ConfigError(["--measured: give --parameters, the budget that is to be kept"])
        return Allotment(parameters, *measured_by)
    if flops is not None:
        return FlopBudget(flops)
    return Ratio(0.5 if ratio is None else ratio) if parameters is None else Budget(parameters)


def _settings(texts: tuple[str, ...], then: tuple[str, ...]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Options of the first translator, and of each that goes on."""
    first: dict[str, Any] = {}
    behind: dict[str, dict[str, Any]] = {name: {} for name in then}
    for name, value in map(_setting, texts):
        translator, dot, own = name.partition(".")
        if dot and translator not in behind:
            unknown = f"{translator} is none of the translators that --then names, nor the probes"
            raise ConfigError([f"--option {name}: {unknown}"])
        (behind[translator] if dot else first)[own if dot else name] = value
    return first, behind


def _hidden(kind: str, options: Mapping[str, Any]) -> list[int]:
    """Hidden units of each group of a block."""
    from paramtrans.plugins import components

    adapter = components().create("block_adapter", kind, **options)
    return [group.size for group in adapter.spec.symmetries]


def _times(sizes: list[int]) -> str:
    return "×".join(map(str, sizes))


def _error(value: float | None) -> str:
    return "not known" if value is None else f"{value:.3f}"


def _columns(sides: str, *rows: tuple[str, ...]) -> None:
    """Rows as columns, each to its side (`<` or `>`); nothing is cut off or folded."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths, strict=True))
        click.echo("  ".join(cells).rstrip())
    click.echo()


def _setting(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ConfigError([f"--option {text}: expected NAME=VALUE"])
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
