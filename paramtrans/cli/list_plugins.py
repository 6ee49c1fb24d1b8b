"""`paramtrans plugins`: every component, and who provides it; and the options of one."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import click

import paramtrans
from paramtrans.cli import answer
from paramtrans.cli.completion import component_names
from paramtrans.cli.flags import json_flag, plugin_files, quiet_flag
from paramtrans.plugins.manager import components
from paramtrans.plugins.registry import Entry

if TYPE_CHECKING:
    from rich.table import Table

LONGEST_DEFAULT = 130
"""Letters of a default that is printed; the meaning of an option says longer ones."""


@click.command()
@click.argument("name", required=False, shell_complete=component_names)
@plugin_files
@json_flag
@quiet_flag
def plugins(name: str | None, as_json: bool, quiet: bool) -> None:
    """List every component and who provides it, or the options of the one called NAME.

    Plugins that cannot be loaded are named on standard error.
    """
    registry = components()
    if name is None:
        rows = [_row(entry) for entry in registry]
    else:
        rows = [_row(entry) | {"options": _options(entry)} for entry in registry.named(name)]
    if as_json:
        answer.tell(rows, indent=2)
    elif name is None:
        click.echo(_overview(rows), nl=False)
    else:
        for row in rows:
            click.echo("  ".join(_cells(row)))
            if row["kind"] == "pretrained_translator":
                click.echo(_trained(row["name"]))
            elif row["kind"] == "command":
                click.echo(f"paramtrans {row['name']} --help says what it takes")
            else:
                _print(_table("option type default meaning", component_rows(row["options"])))
    if not quiet:
        for line in registry.not_loaded:
            click.echo(f"not loaded: {line}", err=True)


def _row(entry: Entry) -> dict[str, Any]:
    return {
        "kind": entry.kind,
        "name": entry.name,
        "summary": entry.component.summary,
        "distribution": entry.provider.distribution,
        "version": entry.provider.version,
    }


def _cells(row: dict[str, Any]) -> list[str]:
    return [row["kind"], row["name"], row["summary"], f"{row['distribution']} {row['version']}".strip()]


def _overview(rows: list[dict[str, Any]]) -> str:
    """Every component below its kind, and who provides it where that is not paramtrans itself."""
    formatter = click.HelpFormatter(width=min(120, shutil.get_terminal_size().columns))
    kinds = dict.fromkeys(row["kind"] for row in rows)
    for kind in kinds:
        with formatter.section(kind):
            formatter.write_dl([(row["name"], _summary(row)) for row in rows if row["kind"] == kind])
    formatter.write_paragraph()
    formatter.write_text(
        f"From paramtrans {paramtrans.__version__}, where nothing else is said. `paramtrans plugins NAME` shows the "
        "options of one."
    )
    return formatter.getvalue()


def _summary(row: dict[str, Any]) -> str:
    provider = _cells(row)[-1]
    return row["summary"] if row["distribution"] == "paramtrans" else f"{row['summary']} ({provider})"


def _trained(name: str) -> str:
    """What a pretrained translator translates, and what it was measured at."""
    from paramtrans.networks.blocks.factories import kind_and_sizes
    from paramtrans.report.findings import headline
    from paramtrans.translators import card
    from paramtrans.translators.saving import find_translator, load_translator

    translator, folder = load_translator(name), find_translator(name, components())
    translator_card = card.read(folder)
    measured = headline(translator_card.results) if translator_card else []
    lines = [f"{kind_and_sizes(translator.source)} → {kind_and_sizes(translator.target)}", *measured]
    return "\n".join([*lines, f"paramtrans translate MODEL --arch ARCHITECTURE --with {name} -o SMALL.safetensors"])


def _options(entry: Entry) -> dict[str, Any]:
    """JSON Schema of a component's options; empty for a command, whose `--help` says it all."""
    model = getattr(entry.resolve(), "Options", None)
    return model.model_json_schema() if model else {}


def option_rows(schema: dict[str, Any]) -> list[list[str]]:
    """Name, type, default and meaning of each option, from the JSON Schema of a model."""
    required = schema.get("required", [])
    return [
        [
            name,
            _type(option),
            "required" if name in required else _default(option),
            " ".join(option.get("description", "").split()),
        ]
        for name, option in schema.get("properties", {}).items()
    ]


def component_rows(schema: dict[str, Any]) -> list[list[str]]:
    """`option_rows` of a component, and of the records that its options are made of."""
    rows = option_rows(schema)
    for record, fields in schema.get("$defs", {}).items():
        rows += [[f"{record}.{name}", *cells] for name, *cells in option_rows(fields)]
    return rows


def _default(option: dict[str, Any]) -> str:
    text = json.dumps(option.get("default"))
    return text if len(text) <= LONGEST_DEFAULT else "…"


def _type(option: dict[str, Any]) -> str:
    if "$ref" in option:
        return str(option["$ref"]).rpartition("/")[2]
    if option.get("type") == "array" and isinstance(items := option.get("items"), dict):
        return f"array of {_type(items)}"
    if "anyOf" in option:
        return " or ".join(_type(choice) for choice in option["anyOf"])
    if "enum" in option:
        return " or ".join(map(json.dumps, option["enum"]))
    return str(option.get("type", "table"))


def _table(columns: str, rows: list[list[str]]) -> Table:
    from rich.table import Table

    table = Table(box=None, header_style="bold")
    for column in columns.split():
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def _print(table: Table) -> None:
    from rich.console import Console

    Console().print(table, markup=False)
