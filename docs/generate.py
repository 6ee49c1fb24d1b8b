"""Pages of the site that are made from the code: home, components, configs, commands, hooks, checks, Python.

A hook of MkDocs, named in mkdocs.yml.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

import paramtrans
from paramtrans.cli.list_plugins import component_rows, option_rows
from paramtrans.config import Config
from paramtrans.plugins import components, hookspecs
from paramtrans.testing import CHECKS
from paramtrans.testing.every import BASES

ROOT = Path(__file__).parents[1]
PUBLIC = ("paramtrans", "paramtrans.config", "paramtrans.testing", "paramtrans.hub")
"""What hands on stable names."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Pages that are not written yet are left out of the navigation."""
    config.nav = _present(config.nav or [])
    return config


def _present(nav: list[Any]) -> list[Any]:
    kept = []
    for entry in nav:
        [(title, target)] = entry.items()
        if isinstance(target, list):
            if below := _present(target):
                kept.append({title: below})
        elif target in PAGES or (ROOT / "docs" / target).is_file():
            kept.append(entry)
    return kept


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds what is generated."""
    for path, make in PAGES.items():
        files.append(File.generated(config, path, content=make()))
    return files


def home() -> str:
    """README, with its links as they are here."""
    return _relinked((ROOT / "README.md").read_text())


def changelog() -> str:
    return _relinked((ROOT / "CHANGELOG.md").read_text())


LINK = re.compile(r"(!?)\[([^\]]+)\]\(([^)\s]+)\)")


def _relinked(text: str) -> str:
    """Links into docs/ and to other sites stay links; files beside it are no pages, and become plain text."""

    def link(match: re.Match[str]) -> str:
        image, words, target = match.groups()
        if target == "CHANGELOG.md":
            return f"[{words}](changelog.md)"
        if target.startswith("docs/"):
            return f"{image}[{words}]({target.removeprefix('docs/')})"
        return match[0] if target.startswith(("https:", "http:", "#")) else words

    return LINK.sub(link, text)


def component_pages() -> str:
    """Every component that comes with paramtrans, with its options."""
    lines = [
        "# Components and their options",
        "",
        "What configs may name. `paramtrans plugins NAME` prints the same.",
        "",
    ]
    registry = components()
    for kind in BASES:
        entries = [e for e in registry.of_kind(kind) if e.provider.distribution == "paramtrans"]
        if not entries:
            continue
        lines += [f"## {kind.replace('_', ' ').capitalize()}s" if kind != "probe" else "## Probes", ""]
        for entry in entries:
            cls = entry.resolve()
            lines += [f"### `{entry.name}` {{ #{kind}-{entry.name} }}", "", inspect.getdoc(cls) or "", ""]
            lines += options_table(component_rows(cls.Options.model_json_schema()))
    return "\n".join(lines)


def options_table(rows: list[list[str]]) -> list[str]:
    """Options, one a line."""
    return [*table("option type default meaning", rows), ""] if rows else ["No options.", ""]


def table(columns: str, rows: Iterable[Iterable[str]]) -> list[str]:
    """A Markdown table; the first column is code."""
    names = columns.split()
    lines = [f"| {' | '.join(names)} |", f"|{' --- |' * len(names)}"]
    for first, *rest in rows:
        cells = [f"`{first}`", *(cell.replace("|", "\\|") for cell in rest)]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def config_page() -> str:
    """Every table of a config."""
    schema = Config.model_json_schema()
    lines = ["# Configs", "", "A run is one TOML file. Its tables:", ""]
    lines += options_table(option_rows(schema))
    for name, part in sorted(schema["$defs"].items()):
        if part.get("properties"):
            lines += [f"## {name}", "", part.get("description", ""), "", *options_table(option_rows(part))]
    return "\n".join(lines)


def commands_page() -> str:
    """`--help` of every command."""
    lines = ["# Commands", ""]
    for entry in components().of_kind("command"):
        if entry.provider.distribution == "paramtrans":
            lines += _command(entry.resolve(), f"paramtrans {entry.name}", 2)
    return "\n".join(lines)


def _command(command: click.Command, name: str, level: int) -> list[str]:
    context = click.Context(command, info_name=name, max_content_width=100, terminal_width=100)
    lines = [f"{'#' * level} {name}", "", "```text", command.get_help(context), "```", ""]
    if isinstance(command, click.Group):
        for below in command.list_commands(context):
            if command_ := command.get_command(context, below):
                lines += _command(command_, f"{name} {below}", level + 1)
    return lines


def hooks_page() -> str:
    """Every hook, from its specification."""
    lines = [
        "# Hooks",
        "",
        inspect.getdoc(hookspecs).partition("\n")[0],
        "",
        "See [writing a plugin](../plugins.md).",
        "",
    ]
    for name, value in vars(hookspecs).items():
        if name.startswith("paramtrans_"):
            arguments = ", ".join(inspect.signature(value).parameters)
            doc = re.sub(r"^    (\w+): ", r"- `\1`: ", inspect.getdoc(value) or "", flags=re.MULTILINE)
            doc = doc.replace("Args:\n", "").replace("Example: `", "Example:\n\n`")
            lines += [f"## `{name}({arguments})`", "", doc, ""]
    return "\n".join(lines)


def checks_page() -> str:
    """What `paramtrans check` checks, kind by kind."""
    lines = ["# Checks", "", "What `paramtrans check` and `paramtrans.testing` hold components to.", ""]
    general = [check for check in CHECKS if check.kinds >= set(BASES)]
    lines += ["## Every component", "", *table("check promise", [(c.name, c.says) for c in general]), ""]
    for kind in [*BASES, "plugin"]:
        special = [c for c in CHECKS if kind in c.kinds and c not in general]
        title = "Plugin" if kind == "plugin" else kind.replace("_", " ").capitalize()
        lines += [f"## {title}", "", *table("check promise", [(c.name, c.says) for c in special]), ""]
    return "\n".join(lines)


def api_page() -> str:
    """The public names, by the package that hands them on and the module they live in."""
    lines = ["# Python", "", "These names are [stable](../formats.md#names-that-go).", ""]
    for package in PUBLIC:
        lines += [f"## `from {package} import …`", ""]
        for home_, names in sorted(public_names(package).items()):
            lines += [f"### `{home_}`", "", *(f"::: {home_}.{name}\n" for name in names)]
    return "\n".join(lines)


def public_names(package: str) -> dict[str, list[str]]:
    """What a package hands on, by the module that defines it."""
    homes: dict[str, list[str]] = {}
    for name in importlib.import_module(package).__all__:
        if not name.startswith("__"):
            homes.setdefault(_home(package, name), []).append(name)
    return homes


def _home(package: str, name: str) -> str:
    if package == "paramtrans":
        return f"paramtrans.{paramtrans._HOMES[name]}"
    value = getattr(importlib.import_module(package), name)
    return "paramtrans.testing.check" if value is CHECKS else str(value.__module__)


PAGES = {
    "index.md": home,
    "changelog.md": changelog,
    "reference/components.md": component_pages,
    "reference/config.md": config_page,
    "reference/commands.md": commands_page,
    "reference/hooks.md": hooks_page,
    "reference/checks.md": checks_page,
    "reference/api.md": api_page,
}
