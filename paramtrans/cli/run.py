"""`paramtrans run`: one config, from zoo to report."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import click
from rich.console import Console

from paramtrans import config, report
from paramtrans.engine import Run
from paramtrans.plugins import plugins
from paramtrans.progress import ConsoleReporter, Reporter


@click.command()
@click.argument("path", metavar="CONFIG", type=click.Path(path_type=Path))
@click.option("--set", "settings", multiple=True, metavar="A.B=VALUE", help="Override one value of the config.")
@click.option("--plugin", "files", multiple=True, type=click.Path(path_type=Path), help="Add a one-file plugin.")
@click.option("--fresh", is_flag=True, help="Start over, zoo included.")
@click.option("--dry-run", is_flag=True, help="Print the plan, and start nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object to standard output.")
@click.option("--quiet", is_flag=True, help="No progress.")
def run(
    path: Path,
    settings: tuple[str, ...],
    files: tuple[Path, ...],
    fresh: bool,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Run a config: train the zoo, train the translator, compare it with its rivals, write a report.

    A run that was interrupted goes on; a finished one answers at once.
    """
    errors = Console(stderr=True)
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    for file in files:
        plugins().load_file(file)
    reporter = Reporter() if quiet else ConsoleReporter(errors)
    resolved = config.load(path, plugins().registry(), settings)
    this = Run(resolved, path.stem, reporter, plugins(), where=str(path))
    if dry_run:
        from paramtrans import planning

        plan = planning.plan(this)
        click.echo(json.dumps(plan.as_dict()) if as_json else planning.describe(plan))
        return
    result = this.do(fresh)
    if as_json:
        click.echo(json.dumps(result.as_dict(), ensure_ascii=False))
    else:
        console = Console()
        console.print(report.table(result.evaluation))
        console.print(f"report: {result.dir / 'report.html'}", highlight=False, soft_wrap=True)
