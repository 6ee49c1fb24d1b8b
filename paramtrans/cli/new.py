"""`paramtrans new`: beginnings to work from."""

from __future__ import annotations

from pathlib import Path

import click

from paramtrans.cli.flags import FilePath
from paramtrans.plugins.scaffold import new_plugin
from paramtrans.plugins.scaffold_kinds import DEFAULT, NAMES


@click.group()
def new() -> None:
    """Write a beginning to work from."""


@new.command()
@click.argument("name")
@click.option("--into", type=FilePath(), default=Path(), help="Folder to make it in; the current one.")
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    type=click.Choice([*NAMES, "all"]),
    metavar="KIND",
    help=f"What it begins with, any number of times: {', '.join(NAMES)}, or all. By default {', '.join(DEFAULT)}.",
)
def plugin(name: str, into: Path, kinds: tuple[str, ...]) -> None:
    """Write a plugin: a distribution called NAME with a working beginning of each kind, and their tests."""
    folder = new_plugin(name, into, NAMES if "all" in kinds else kinds or DEFAULT)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        click.echo(path)
    click.echo(f"now: pip install --editable {folder} && paramtrans check {name}", err=True)
