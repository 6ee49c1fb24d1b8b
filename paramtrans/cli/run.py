"""`paramtrans run`: one config, from zoo to report."""

from __future__ import annotations

from pathlib import Path

import click

from paramtrans.cli import answer
from paramtrans.cli.completion import settings as completed
from paramtrans.cli.flags import FilePath, json_flag, plugin_files, quiet_flag
from paramtrans.cli.processes import joined
from paramtrans.cli.show import show


@click.command()
@click.argument("path", metavar="[CONFIG]", required=False, type=FilePath())
@click.option("--from", "record", metavar="RUN.JSON", type=FilePath(), help="Make a run again.")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="A.B=VALUE",
    shell_complete=completed,
    help="Override one value of the config.",
)
@plugin_files
@click.option("--fresh", is_flag=True, help="Start over, zoo included.")
@click.option("--dry-run", is_flag=True, help="Print the plan, and start nothing.")
@json_flag
@quiet_flag
def run(
    path: Path | None,
    record: Path | None,
    settings: tuple[str, ...],
    fresh: bool,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Run a config: train the zoo, train the translator, compare it with its rivals, write a report.

    A run that was interrupted goes on; a finished one answers at once. `--from` takes the `run.json` of a finished run
    in place of a config, and makes it again in runs/NAME-again.
    """
    from rich.console import Console

    from paramtrans.config import loading
    from paramtrans.plugins.manager import plugins
    from paramtrans.runs import planner, repeat
    from paramtrans.runs.run import Run
    from paramtrans.runs.sweep import Sweep, is_sweep
    from paramtrans.utils.progress import ConsoleReporter, Reporter

    leads = joined().leads
    reporter = ConsoleReporter(Console(stderr=True)) if leads and not quiet else Reporter()
    requested: Run | Sweep
    if path is None or record is not None:
        if record is None or path is not None:
            raise click.UsageError("give either a config or --from RUN.JSON")
        requested = repeat.again(record, settings, reporter, plugins())
    elif is_sweep(path):
        requested = Sweep(path, settings, reporter, plugins())
    else:
        requested = Run(
            loading.load(path, plugins().registry(), settings), path.stem, reporter, plugins(), where=str(path)
        )
    if dry_run:
        if not leads:
            return
        plan = planner.plan_sweep(requested) if isinstance(requested, Sweep) else planner.plan(requested)
        answer.tell(plan.as_dict()) if as_json else click.echo(plan.describe())
        return
    result = requested.do(fresh)
    if not leads:
        return
    if as_json:
        answer.tell(result.as_dict())
    else:
        show(result.table())
        click.echo(f"report: {result.dir / 'report.html'}")
