"""`paramtrans translate`: the blocks of a user's own network made smaller."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import click

from paramtrans.cli import answer, exports, inputs
from paramtrans.cli.flags import force_flag, json_flag, plugin_files, quiet_flag
from paramtrans.cli.losses import EVALUATE, PREDICTS, read_labelled, tell_losses
from paramtrans.cli.networks import ARCHITECTURE, BLOCKS, MODEL, columns, named_targets, read_network
from paramtrans.cli.widths import chosen_widths, width_options
from paramtrans.errors import ConfigError


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
@width_options
@click.option(
    "--by",
    type=click.Choice(["blocks", "units"]),
    help="Blocks that adapters recognise, or units that the graph shows; by default units where there are no blocks.",
)
@click.option(
    "--to",
    "other",
    multiple=True,
    metavar="PATTERN=NAME[?OPTIONS]",
    help="Another architecture for the parts whose paths match: a block adapter. --option is then of the fitting.",
)
@click.option("--independent", is_flag=True, help="Translate each block as if it were the only one.")
@inputs.DATA
@inputs.EXAMPLES
@inputs.LENGTH
@inputs.SEED
@inputs.PROBES
@inputs.SHAPE
@EVALUATE
@PREDICTS
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Where the small network goes.")
@click.option("--stock", metavar="FOLDER", type=click.Path(path_type=Path), help="Also as its own library writes it.")
@exports.REPORT
@exports.ONNX
@exports.EXPORT
@force_flag
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
    by: Literal["blocks", "units"] | None,
    other: tuple[str, ...],
    independent: bool,
    data: Path | None,
    examples: int | None,
    length: int | None,
    seed: int,
    probes: str | None,
    shape: str | None,
    labelled: Path | None,
    predicts: Literal["scores", "tokens", "embedding", "values"] | None,
    output: Path,
    stock: Path | None,
    report: Path | None,
    onnx: Path | None,
    export: Path | None,
    force: bool,
    quiet: bool,
    as_json: bool,
    **widths: Any,
) -> None:
    """Translate the blocks of a network to smaller ones; write its parameters, and beside them how to rebuild it."""
    from rich.console import Console

    from paramtrans.networks.files import save_translated
    from paramtrans.networks.loading.architectures import factory_file
    from paramtrans.networks.results.described import describe_blocks, error_text, size_changes
    from paramtrans.networks.results.measuring import measure_losses
    from paramtrans.networks.results.stock import save_stock
    from paramtrans.networks.translate import translate as translate_network
    from paramtrans.storage import files, outputs, sealed_params
    from paramtrans.utils.progress import ConsoleReporter, Reporter

    if output.suffix != ".safetensors":
        raise ConfigError([f"-o {output}: must end in .safetensors"])
    given = [
        model,
        *(path for path in (data, labelled) if path),
        *([Path(translator)] if Path(translator).is_dir() else []),
    ]
    for path in (output, sealed_params.record_path(output)):
        outputs.check(path, [*given, *factory_file(architecture)], force)
    exports.check(report, onnx, export, data, given, force)
    if stock is not None:
        outputs.check_folder(stock, given)
        if data is None:
            raise ConfigError(["--stock: takes --calibrate DATA, to hold the library's own network to this one"])
    named = [name for name in (probes, widths["rule"]) if name]
    options, going_on = _settings(settings, (*then, *named))
    made_up = inputs.shape_of_made_up(probes, shape, data)
    chosen = Path(translator) if Path(translator).is_dir() else translator
    rule = chosen_widths(widths, (chosen, options), going_on.pop(widths["rule"], {}))
    promised = _promised(chosen)
    network = read_network(model, architecture)
    batches = inputs.read(data, network, architecture, (examples, length, seed))
    evaluate = read_labelled(labelled) if labelled else []
    if probes and made_up:
        batches = inputs.drawn(network, probes, made_up, going_on.pop(probes))
    to = named_targets(other)
    small = translate_network(
        network,
        chosen,
        to=to,
        ratio=widths["ratio"] if to else None,
        widths=None if to and widths["ratio"] else rule,
        blocks=blocks,
        calibrate=batches,
        options=options,
        then=going_on,
        sequential=not independent,
        by=by,
        seed=seed,
        reporter=Reporter() if quiet else ConsoleReporter(Console(stderr=True)),
    )
    made = describe_blocks(small)
    losses = measure_losses(network, small, batches, predicts=predicts, evaluate=evaluate)
    whole = next(iter(losses.outputs.values()), None)
    _tell_what_is_left(made, losses.after.parameters, widths["parameters"], quiet)
    contents = exports.made(small, batches[0], onnx, export) if onnx or export else {}
    if report is not None:
        made_by = ", ".join(Path(name).name for name in (translator, *then))
        drawn = f"{probes} (made up)" if probes else data.name if data else "none"
        facts = {"translator": made_by, "calibration inputs": drawn, "seed": str(seed)}
        contents[report] = exports.page(network, small, batches, losses, architecture, facts)
    if stock is not None:
        save_stock(small, architecture, stock, batches[0], losses, [Path(name).name for name in (translator, *then)])
    save_translated(small, output, architecture, losses)
    for path, content in contents.items():
        files.write_bytes(path, content)
    if as_json:
        told = losses.model_dump(mode="json")
        found = {"output": str(output), "before": told.pop("before"), "after": told.pop("after"), "blocks": made}
        answer.tell({**found, "output_error": whole, "losses": told, "promised": promised})
        return
    columns(
        "<<<>",
        ("block", "hidden units", "parameters", "feature error"),
        *((one["path"] or ".", *size_changes(one), error_text(one["feature_error"])) for one in made),
        ("output of the network", "", "", error_text(whole)),
    )
    tell_losses(losses)
    if probes:
        click.echo("errors are those on made-up inputs; on real ones they may be much larger")
    if promised:
        click.echo(f"Of {translator}, on hosts like those it was trained on: {promised}")
    if not batches:
        click.echo("with --calibrate DATA, how good the blocks come out is predicted")
    click.echo(f"{output}: rebuild it by paramtrans.load_translated")


def _tell_what_is_left(made: list[dict[str, Any]], parameters: int, budget: int | None, quiet: bool) -> None:
    """Say where nothing was made smaller, or a good part of a budget is left."""
    said = None
    if not made:
        said = "nothing was translated: every block keeps its width; lower --ratio, --parameters or --flops"
    elif budget is not None and parameters < 0.9 * budget:
        said = f"{parameters:,} of the {budget:,} parameters of the budget are used: no width fits in between"
    if said and not quiet:
        click.echo(f"warning: {said}", err=True)


def _promised(translator: str | Path) -> str | None:
    """What the card of a trained translator says that it was measured at."""
    from paramtrans.networks.blocks import factories
    from paramtrans.plugins.manager import components
    from paramtrans.report.html import headline
    from paramtrans.translators import card
    from paramtrans.translators.saving import find_translator

    if not factories.is_trained(translator, components()):
        return None
    folder = find_translator(translator, components())
    known = card.read(folder)
    return headline(known.results.methods)[0] if known else None


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


def _setting(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ConfigError([f"--option {text}: expected NAME=VALUE"])
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
