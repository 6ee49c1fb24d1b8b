"""`paramtrans explore`: several widths of a network side by side, to choose one."""

from __future__ import annotations

import math
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from paramtrans.cli import answer, inputs
from paramtrans.cli.exports import REPORT
from paramtrans.cli.flags import force_flag, json_flag, plugin_files, quiet_flag
from paramtrans.cli.losses import PREDICTS
from paramtrans.cli.networks import (
    ARCHITECTURE,
    BLOCKS,
    CAPTURED,
    MODEL,
    architecture_of,
    as_captured,
    columns,
    read_network,
)
from paramtrans.cli.processes import joined
from paramtrans.errors import ConfigError
from paramtrans.plugins.manager import plugins
from paramtrans.utils.counts import counted

if TYPE_CHECKING:
    from paramtrans.networks.results.exploring import Point

HEADS = ("ratio", "parameters", "size", "latency", "agreement")

KNEE = "The knee, after which being smaller costs most, is the width farthest below the line between both ends."


@click.command()
@MODEL
@ARCHITECTURE
@CAPTURED
@click.option("--with", "translator", default="refit", show_default=True, metavar="NAME", help="A translator.")
@BLOCKS
@click.option(
    "--ratios", default="0.9,0.75,0.6,0.5,0.4,0.25", show_default=True, help="Shares of the hidden units, by commas."
)
@inputs.DATA
@inputs.EXAMPLES
@inputs.LENGTH
@inputs.SEED
@PREDICTS
@REPORT
@force_flag
@plugin_files
@quiet_flag
@json_flag
def explore(
    model: Path,
    architecture: str | None,
    captured: bool,
    translator: str,
    blocks: str,
    ratios: str,
    data: Path | None,
    examples: int | None,
    length: int | None,
    seed: int,
    predicts: Literal["scores", "tokens", "embedding", "values"] | None,
    report: Path | None,
    force: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Translate a network at several widths and say what each costs and loses; nothing but the page is written.

    Losses are those on inputs that nothing was fitted to. The knee is the width after which being smaller costs most.
    """
    from rich.console import Console

    from paramtrans.networks.results import exploring
    from paramtrans.networks.results.measuring import measure_losses
    from paramtrans.networks.translate import translate
    from paramtrans.storage import files, outputs
    from paramtrans.utils.progress import ConsoleReporter, Reporter

    architecture = architecture_of(model, architecture)
    if data is None:
        raise ConfigError(["explore takes --calibrate DATA: without inputs there is no loss to compare widths by"])
    shares = _shares(ratios)
    if report is not None:
        if report.suffix != ".html":
            raise ConfigError([f"--report {report}: must end in .html"])
        outputs.check(report, [model, data], force)
    network = read_network(model, architecture)
    batches = inputs.read(data, network, architecture, (examples, length, seed))
    network = as_captured(network, batches) if captured else network
    processes = joined()
    reporter = ConsoleReporter(Console(stderr=True)) if processes.leads and not quiet else Reporter()
    points = exploring.explore(
        lambda ratio: translate(
            network, translator, ratio=ratio, blocks=blocks, calibrate=batches, seed=seed, reporter=reporter
        ),
        lambda small: measure_losses(network, small, batches, predicts=predicts),
        shares,
        processes,
    )
    if not processes.leads:
        return
    loss, values = exploring.loss_of(points[0].losses)[0], [exploring.loss_of(point.losses)[1] for point in points]
    knee = exploring.knee([point.size for point in points], values)
    rows = [_row(point, value) for point, value in zip(points, values, strict=True)]
    chosen = points[knee if knee is not None else 0]
    command = _command(model, architecture, captured, translator, blocks, data, (examples, length, seed), chosen.ratio)
    if report is not None:
        page = _page(architecture, points, values, rows, knee, loss, command)
        files.write_bytes(report, page.encode("utf-8", errors="replace"))
    if as_json:
        answer.tell(_document(points, values, loss, None if knee is None else chosen.ratio, command))
        return
    marked = [(*row, "← knee" if number == knee else "") for number, row in enumerate(rows)]
    columns(">>>>>><", (*HEADS, loss, ""), *marked)
    click.echo(f"losses are those on {counted(points[0].losses.examples, 'input')}{_aside(points)}")
    click.echo(f"no knee: {_no_knee(points)}" if knee is None else f"to write the network at the knee:\n  {command}")


def _document(points: list[Point], values: list[float], loss: str, knee: float | None, command: str) -> dict[str, Any]:
    """The answer of `--json`."""
    records = [
        {"ratio": point.ratio, "loss": value, **point.losses.model_dump(mode="json")}
        for point, value in zip(points, values, strict=True)
    ]
    return {"points": records, "loss": loss, "knee": knee, "command": command}


def _shares(text: str) -> list[float]:
    """The shares of `--ratios`."""
    try:
        shares = [float(part) for part in text.split(",")]
    except ValueError:
        shares = []
    if not shares or not all(math.isfinite(share) and 0 < share < 1 for share in shares):
        raise ConfigError([f"--ratios {text}: expected shares of the hidden units between 0 and 1, such as 0.75,0.5"])
    return shares


def _row(point: Point, loss: float) -> tuple[str, ...]:
    shares = [
        None if value is None else f"{value:.0%}" for value in (point.size, point.latency, point.losses.agreement)
    ]
    return f"{point.ratio:g}", f"{point.losses.after.parameters:,}", *(share or "" for share in shares), f"{loss:.4g}"


def _aside(points: list[Point]) -> str:
    return " kept aside" if points[0].losses.held_out else " that were fitted to: too few to keep aside"


def _no_knee(points: list[Point]) -> str:
    """Why none of the widths is the knee."""
    return "no width lies below the line between both ends" if len(points) > 2 else "one takes three widths or more"


def _command(
    model: Path,
    architecture: str,
    captured: bool,
    translator: str,
    blocks: str,
    data: Path,
    drawing: tuple[int | None, int | None, int],
    ratio: float,
) -> str:
    """The `translate` that writes a network of this width."""
    words = ["paramtrans", "translate", str(model), "--arch", architecture, "--calibrate", str(data)]
    examples, length, seed = drawing
    flags: dict[str, Any] = {"--examples": examples, "--length": length, "--seed": seed or None}
    flags |= {"--with": None if translator == "refit" else translator, "--blocks": None if blocks == "*" else blocks}
    for flag, value in flags.items():
        words += [] if value is None else [flag, str(value)]
    words += [word for file in plugins().files for word in ("--plugin", str(file))]
    output = ["--captured", "-o", "small.pt2"] if captured else ["-o", "small.safetensors"]
    return shlex.join([*words, "--ratio", f"{ratio:g}", *output])


def _page(
    architecture: str,
    points: list[Point],
    values: list[float],
    rows: list[tuple[str, ...]],
    knee: int | None,
    loss: str,
    command: str,
) -> str:
    """The table and the curve, as a page that is complete in itself."""
    from markupsafe import Markup

    from paramtrans.networks.results.translation_page import rendered
    from paramtrans.report import figures, translation_figures

    curve_points = [{"size": 100 * p.size, "loss": v} for p, v in zip(points, values, strict=True)]
    if all(p.latency is not None for p in points):
        curve_points = [
            {**point, "latency": 100 * (p.latency or 0)} for point, p in zip(curve_points, points, strict=True)
        ]
    figure = translation_figures.curve(curve_points, knee, loss)
    ratio_at_knee = f"{points[knee].ratio:g}" if knee is not None else ""
    return rendered(
        architecture.rpartition("/")[2],
        eyebrow="paramtrans explore",
        headline=f"The knee is at {ratio_at_knee} of the hidden units."
        if ratio_at_knee
        else f"There is no knee: {_no_knee(points)}.",
        points={
            "caption": f"Losses are those on {counted(points[0].losses.examples, 'input')}{_aside(points)}",
            "heads": (*HEADS, loss),
            "rows": rows,
            "knee": -1 if knee is None else knee,
            "said": KNEE if knee is not None else "",
        },
        curve=Markup(figures.svg(figure, "curve", f"{loss} at {', '.join(f'{r[0]}: {r[-1]}' for r in rows)}.")),
        note=f"To write it: {command}" if knee is not None else "",
    )
