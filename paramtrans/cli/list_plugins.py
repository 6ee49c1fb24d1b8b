"""`paramtrans plugins`: every component, and who provides it."""

from __future__ import annotations

import json
from pathlib import Path

import click

from paramtrans.plugins import plugins as loaded


@click.command()
@click.option("--json", "as_json", is_flag=True, help="A list of objects instead of a table.")
@click.option("--plugin", "files", multiple=True, type=click.Path(path_type=Path), help="Add a one-file plugin.")
def plugins(as_json: bool, files: tuple[Path, ...]) -> None:
    """List every component and who provides it. Plugins that cannot be loaded are named on standard error."""
    for file in files:
        loaded().load_file(file)
    registry = loaded().registry()
    rows = [
        {
            "kind": entry.kind,
            "name": entry.name,
            "summary": entry.component.summary,
            "distribution": entry.provider.distribution,
            "version": entry.provider.version,
        }
        for entry in registry
    ]
    if as_json:
        click.echo(json.dumps(rows, indent=2, ensure_ascii=False))
    else:
        _print(rows)
    for line in registry.not_loaded:
        click.echo(f"not loaded: {line}", err=True)


def _print(rows: list[dict[str, str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="bold")
    for column in ("kind", "name", "summary", "from"):
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(row["kind"], row["name"], row["summary"], f"{row['distribution']} {row['version']}".strip())
    Console().print(table, markup=False)
