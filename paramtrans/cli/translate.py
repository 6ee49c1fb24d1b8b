"""`paramtrans translate`: the blocks of a user's own network made smaller."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from paramtrans.cli import answer, exports, inputs, summary
from paramtrans.cli.flags import FilePath, Positive, force_flag, json_flag, plugin_files, quiet_flag
from paramtrans.cli.losses import EVALUATE, PREDICTS, read_labelled
from paramtrans.cli.networks import (
    ARCHITECTURE,
    BLOCKS,
    CAPTURED,
    MODEL,
    architecture_of,
    as_captured,
    named_targets,
    read_network,
)
from paramtrans.cli.processes import joined
from paramtrans.cli.widths import chosen_widths, width_options
from paramtrans.errors import ConfigError

if TYPE_CHECKING:
    from paramtrans.networks.losses import Losses


@click.command()
@MODEL
@ARCHITECTURE
@CAPTURED
@click.option("--with", "translator", default="refit", show_default=True, metavar="NAME|FOLDER", help="A translator.")
@click.option(
    "--then", "further", multiple=True, metavar="NAME", help="A translator that goes on from what the last one wrote."
)
@click.option(
    "--option",
    "settings",
    multiple=True,
    metavar="NAME=VALUE",
    help="An option of the translator; of one that goes on, of probes or of finish: THEIRS.NAME=VALUE.",
)
@BLOCKS
@width_options
@click.option(
    "--depth",
    type=Positive(also_zero=True),
    metavar="SHARE",
    help="Share of the blocks that stay; the others are left out where that costs least. With --to: that are replaced.",
)
@click.option(
    "--stream",
    type=Positive(),
    metavar="SHARE",
    help="Share of the width of residual streams that stays; hidden widths stay unless they are asked for.",
)
@click.option("--rotate", is_flag=True, help="With --stream: into principal axes first, of which the first stay.")
@click.option(
    "--query-key",
    type=Positive(),
    metavar="SHARE",
    help="Share of the dimensions of queries and keys that stays, and of values where the code ties these to them.",
)
@click.option(
    "--by",
    type=click.Choice(["blocks", "units"]),
    help="Units that the graph shows (with inputs), or blocks that adapters recognise; by default units.",
)
@click.option(
    "--to",
    "targets",
    multiple=True,
    metavar="PATTERN=NAME[?OPTIONS]",
    help="Another architecture for the parts whose paths match: a block adapter. --option is then of the fitting.",
)
@click.option(
    "--finish",
    type=click.IntRange(1),
    metavar="STEPS",
    help="At the end, steps on all that was translated, together, on the network's outputs.",
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
@click.option(
    "-o",
    "--output",
    required=True,
    type=FilePath(),
    help="Where the small network goes: FILE.safetensors, or FILE.pt2 with --captured.",
)
@exports.export_options
@force_flag
@plugin_files
@quiet_flag
@json_flag
def translate(
    model: Path,
    architecture: str | None,
    captured: bool,
    translator: str,
    further: tuple[str, ...],
    settings: tuple[str, ...],
    blocks: str,
    depth: float | None,
    stream: float | None,
    rotate: bool,
    query_key: float | None,
    by: Literal["blocks", "units"] | None,
    targets: tuple[str, ...],
    finish: int | None,
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
    force: bool,
    quiet: bool,
    as_json: bool,
    **further_flags: Any,
) -> None:
    """Make a network smaller; write its parameters, and beside them how to rebuild it."""
    from rich.console import Console

    from paramtrans.networks.files import save_translated
    from paramtrans.networks.results.described import describe_blocks, steps_of, takes_translator
    from paramtrans.networks.results.measuring import measure_losses
    from paramtrans.networks.translate import translate as translate_network
    from paramtrans.utils.progress import ConsoleReporter, Reporter

    leads = joined().leads
    architecture, wanted, widths = (
        architecture_of(model, architecture),
        exports.Exports.taken(further_flags),
        further_flags,
    )
    chosen = Path(translator) if Path(translator).is_dir() else translator
    read_files = [model, *(path for path in (data, labelled) if path), *([chosen] if isinstance(chosen, Path) else [])]
    exports.check_output(output, architecture, captured, read_files, force)
    wanted.check(architecture, output, captured, data, read_files, force)
    option_names = [name for name in (probes, widths["rule"], "finish" if finish else None) if name]
    options, further_options = _settings(settings, (*further, *option_names))
    finishing = {**further_options.pop("finish"), "steps": finish} if finish else None
    probe_shape = inputs.probe_shape(probes, shape, data)
    usual = 0.5 if stream is None and query_key is None else 1.0
    rule = chosen_widths(widths, (chosen, options), further_options.pop(widths["rule"], {}), usual)
    to = named_targets(targets)
    if to and (rounding := [flag for flag in ("multiple_of", "least") if widths[flag] is not None]):
        raise ConfigError([f"--{rounding[0].replace('_', '-')}: is of hidden units, and --to makes other blocks"])
    promised = _promised(chosen)
    network = read_network(model, architecture)
    batches = inputs.read(data, network, architecture, (examples, length, seed))
    evaluate = read_labelled(labelled, network) if labelled else []
    if probes and probe_shape:
        batches = inputs.draw(network, probes, probe_shape, further_options.pop(probes), seed)
    network = as_captured(network, batches) if captured else network
    small = translate_network(
        network,
        chosen,
        to=to,
        ratio=widths["ratio"] if to else None,
        widths=None if to and widths["ratio"] else rule,
        depth=depth,
        stream=stream,
        rotate=rotate,
        query_key=query_key,
        blocks=blocks,
        calibrate=batches,
        options=options,
        then=further_options,
        finish=finishing,
        sequential=not independent,
        by=by,
        distributed=True,
        seed=seed,
        reporter=ConsoleReporter(Console(stderr=True)) if leads and not quiet else Reporter(),
    )
    if not leads:
        return
    records = describe_blocks(small)
    losses = measure_losses(network, small, batches, predicts=predicts, evaluate=evaluate)
    _warn_of_budget(records, losses.after.parameters, widths["parameters"], quiet)
    translators = [Path(translator).name] if takes_translator(small) else []
    translators += [*further, *(["finish"] if finish else [])]
    if not captured:
        save_translated(small, output, architecture, losses)
    source = f"{probes} (synthetic)" if probes else data.name if data else "none"
    facts = {"what was done": "; ".join(steps_of(small)), "by": ", ".join(translators)}
    facts = {name: fact for name, fact in facts.items() if fact} | {"calibration inputs": source, "seed": str(seed)}
    translated = exports.Translated(network, small, batches, losses, architecture, translators, facts)
    if as_json:
        answer.tell(_document(output, records, losses, promised) | {"refused": summary.refused(small)})
    else:
        summary.print_blocks(records, losses)
        summary.tell_refused(small, quiet)
        click.echo(summary.staying(network, small))
        if probes:
            click.echo("errors are those on synthetic inputs; on real ones they may be much larger")
        if promised:
            click.echo(f"Of {translator}, on hosts like those it was trained on: {promised}")
        if not batches:
            click.echo("with --calibrate DATA, how good the blocks come out is predicted")
    wanted.write(translated, output, captured)  # behind the answer, which must not be lost with a form that fails
    if not as_json:
        rebuilt = "read it by torch.export.load, or by paramtrans as any MODEL"
        click.echo(f"{output}: {rebuilt if captured else summary.rebuilt_by(architecture)}")


def _document(output: Path, records: list[dict[str, Any]], losses: Losses, promised: str | None) -> dict[str, Any]:
    """The answer of `--json`."""
    measures = losses.model_dump(mode="json")
    return {
        "output": str(output),
        "before": measures.pop("before"),
        "after": measures.pop("after"),
        "blocks": records,
        "output_error": summary.output_error(losses),
        "losses": measures,
        "promised": promised,
    }


def _warn_of_budget(records: list[dict[str, Any]], parameters: int, budget: int | None, quiet: bool) -> None:
    """Say where a good part of a budget is not used."""
    if records and budget is not None and parameters < 0.9 * budget and not quiet:
        used = f"{parameters:,} of the {budget:,} parameters of the budget are used: no width fits in between"
        click.echo(f"warning: {used}", err=True)


def _promised(translator: str | Path) -> str | None:
    """What the card of a trained translator says that it was measured at."""
    from paramtrans.networks.blocks import factories
    from paramtrans.plugins.manager import components
    from paramtrans.report.findings import headline
    from paramtrans.translators import card
    from paramtrans.translators.saving import find_translator

    if not factories.is_trained(translator, components()):
        return None
    folder = find_translator(translator, components())
    translator_card = card.read(folder)
    return headline(translator_card.results)[0] if translator_card else None


def _settings(texts: tuple[str, ...], further: tuple[str, ...]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Options of the first translator, and of each that goes on."""
    if twice := [name for name in further if further.count(name) > 1]:
        raise ConfigError([f"--then {twice[0]}: is given twice; what it is to do is said by --option {twice[0]}.NAME="])
    options: dict[str, Any] = {}
    further_options: dict[str, dict[str, Any]] = {name: {} for name in further}
    for name, value in map(_setting, texts):
        translator, dot, option_name = name.partition(".")
        if dot and translator not in further_options:
            unknown = (
                f"{translator} is none of the translators that --then names, nor the probes, the rule of --widths, nor "
                "finish with --finish; options stand behind the name of what they are of"
            )
            raise ConfigError([f"--option {name}: {unknown}"])
        (further_options[translator] if dot else options)[option_name if dot else name] = value
    return options, further_options


def _setting(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ConfigError([f"--option {text}: expected NAME=VALUE"])
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
