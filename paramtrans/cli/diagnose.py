"""`paramtrans diagnose`: why the blocks of a run are as good as they are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from paramtrans.cli import answer
from paramtrans.cli.flags import FilePath, json_flag
from paramtrans.cli.show import show
from paramtrans.utils.counts import counted

if TYPE_CHECKING:
    from paramtrans.api.records import Diagnosed

WORST = 5


@click.command()
@click.argument("folder", metavar="RUN", type=FilePath())
@json_flag
def diagnose(folder: Path, as_json: bool) -> None:
    """Say why the translated blocks of a finished run are as good as they are, method by method.

    Unit cosine: how alike hidden units are (1: all are one). Silent units: share that never fires. Feature error:
    of what the block computes, relative to its variance. Divergence: of the network's output probabilities (output
    error: where outputs are values). Nearest pair: distance to the nearest trained target (0: a copy; 1: as far as
    these are from each other). ρ: rank correlation of the lack of confidence, which needs no label, with what
    was lost by the task's metric.
    """
    from paramtrans.errors import StoreError
    from paramtrans.runs.folder import read_finished

    path = folder / "evaluation.json"
    _, evaluation = read_finished(folder)
    section = evaluation.diagnosis
    if section is None:
        raise StoreError(
            f"{path}: has no diagnosis, for an earlier paramtrans wrote it; use run --fresh to make it anew"
        )
    if as_json:
        answer.tell(section.document())
        return
    _show(section, evaluation.hosts.seeds)


def _show(section: Diagnosed, seeds: list[int]) -> None:
    """The table, and the hosts to trust least."""
    from rich.table import Table
    from rich.text import Text

    from paramtrans.evaluation.diagnosis import describe
    from paramtrans.report.figures import label

    heading, *rows = describe(section)
    title = f"On {counted(section.images, 'training example')}, without their labels"
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0), header_style="bold")
    for number, column in enumerate(heading):
        table.add_column(column.replace(" ", "\n"), justify="right" if number else "left", no_wrap=not number)
    for method, *values in rows:
        table.add_row(Text(label(method)), *values)
    show(table)
    _worst(section, seeds)


def _worst(section: Diagnosed, seeds: list[int]) -> None:
    """Name the hosts whose blocks of the run's own translator deserve the least trust."""
    if translated := section.methods.get("translated"):
        measured = [
            (value, seed) for value, seed in zip(translated.confidence, seeds, strict=False) if value is not None
        ]
        ranked = sorted(measured)[:WORST]
        click.echo("least confidence: " + ", ".join(f"host {seed} ({value:.2f})" for value, seed in ranked))
