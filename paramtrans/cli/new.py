"""`paramtrans new`: beginnings to work from."""

from __future__ import annotations

from pathlib import Path

import click

from paramtrans.plugins.scaffold import new_plugin


@click.group()
def new() -> None:
    """Write a beginning to work from."""


@new.command()
@click.argument("name")
@click.option("--into", type=click.Path(path_type=Path), default=Path(), help="Folder to make it in; the current one.")
def plugin(name: str, into: Path) -> None:
    """Write a plugin: a distribution called NAME with a block adapter, a translator, an augmenter, and their tests."""
    folder = new_plugin(name, into)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        click.echo(path)
    click.echo(f"now: pip install --editable {folder} && paramtrans check {name}", err=True)
