"""`paramtrans check`: the conformance kit from the shell."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import groupby

import click

from paramtrans.cli import answer
from paramtrans.cli.completion import component_names
from paramtrans.cli.flags import json_flag, plugin_files, quiet_flag
from paramtrans.config import merge
from paramtrans.errors import ConfigError
from paramtrans.testing import Result, results, subjects
from paramtrans.testing.every import BASES
from paramtrans.utils.counts import counted


@click.command()
@click.argument("name", shell_complete=component_names)
@click.option(
    "--kind", type=click.Choice(list(BASES)), help="Only the component of this kind, where several share a name."
)
@click.option("--set", "settings", multiple=True, metavar="OPTION=VALUE", help="Try it with this value of an option.")
@plugin_files
@json_flag
@quiet_flag
def check(name: str, kind: str | None, settings: tuple[str, ...], as_json: bool, quiet: bool) -> int:
    """Check that a component, or all components of a distribution, do what their kinds promise.

    A line for each check. Exit status: 0 where all hold, 1 where one does not, 2 where there is no such name.
    """
    chosen = subjects(name, kind=kind, options=_options(settings))
    outcomes = []
    if as_json:
        outcomes = list(results(chosen))
        answer.tell(json.loads(json.dumps([result.as_dict() for result in outcomes], default=str)), indent=2)
    else:
        outcomes = _print_results(results(chosen), quiet)
        failed = sum(not result.passed for result in outcomes)
        click.echo(f"{counted(len(outcomes), 'check')}, {f'{failed} failed' if failed else 'all passed'}")
    return int(not all(result.passed for result in outcomes))


def _options(settings: tuple[str, ...]) -> dict[str, object]:
    document = merge.override({}, settings)
    if nested := [key for key, value in document.items() if isinstance(value, dict) and f"{key}." in "".join(settings)]:
        raise ConfigError([f"--set {nested[0]}: options stand alone here, such as --set hidden=3"])
    return document


def _print_results(outcomes: Iterable[Result], quiet: bool) -> list[Result]:
    """Print each result as it comes, under its component and options; with `quiet` failures alone."""
    printed: list[Result] = []
    for (kind, name, options), group in groupby(
        outcomes, lambda r: (r.kind, r.name, json.dumps(r.options, default=str))
    ):
        title = " ".join([kind, name, *(f"{key}={value}" for key, value in json.loads(options).items())])
        shown = False
        for result in group:
            printed.append(result)
            if quiet and result.passed:
                continue
            if not shown:
                click.secho(title, bold=True)
                shown = True
            mark = click.style("ok  ", fg="green") if result.passed else click.style("FAIL", fg="red")
            click.echo(f"  {mark}  {result.check}: {result.says}")
            if not result.passed:
                click.echo(f"        {result.message}")
    return printed
