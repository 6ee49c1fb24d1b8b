"""Which names are stable: all that the scaffold and the pages import is, and every key of a config has a meaning."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from paramtrans.cli.list_plugins import option_rows
from paramtrans.config import Config

ROOT = Path(__file__).parents[2]
IMPORT = re.compile(r"^\s*from (paramtrans[\w.]*) import \(?([^\n()]+)", re.MULTILINE)
PUBLIC = ("paramtrans", "paramtrans.config", "paramtrans.testing", "paramtrans.hub")
FOR_PEOPLE_HERE = {"docs/formats.md"}
"""Shows how those who work on paramtrans rename something."""
READ = [
    *(ROOT / "paramtrans/templates/plugin").rglob("*.jinja"),
    *(ROOT / "docs").glob("*.md"),
    ROOT / "README.md",
    ROOT / "docs/unit_translator.py",
]
SCHEMA = Config.model_json_schema()


def ids(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", READ, ids=ids)
def test_what_the_scaffold_and_the_pages_import_is_stable(path: Path) -> None:
    if ids(path) in FOR_PEOPLE_HERE:
        return
    for package, names in IMPORT.findall(path.read_text(encoding="utf-8")):
        handed_on = importlib.import_module(package).__all__ if package in PUBLIC else ()
        packages = {name.rpartition(".")[2] for name in PUBLIC if package == "paramtrans"}
        wanted = {name.split(" as ")[0].strip() for name in names.split(",") if name.strip()}
        assert wanted <= {*handed_on, *packages}, f"{package}: {wanted - {*handed_on}}"


def test_the_page_of_what_is_stable_names_each_package_that_hands_names_on() -> None:
    text = " ".join((ROOT / "docs/formats.md").read_text(encoding="utf-8").split())
    listed = text[text.index("the Python names that") : text.index("hand on (`__all__` of each")]
    assert re.findall(r"`(paramtrans[\w.]*)`", listed) == list(PUBLIC)


@pytest.mark.parametrize("table", ["Config", *(n for n, part in SCHEMA["$defs"].items() if part.get("properties"))])
def test_every_key_of_a_config_has_a_meaning_in_the_reference(table: str) -> None:
    rows = option_rows(SCHEMA if table == "Config" else SCHEMA["$defs"][table])
    assert [name for name, _, _, meaning in rows if not meaning] == []


def functions() -> dict[str, Callable[..., object]]:
    """Public functions, and methods that public classes define, by name."""
    listed = {}
    for package in PUBLIC:
        module = importlib.import_module(package)
        for name in module.__all__:
            value = inspect.unwrap(getattr(module, name))
            if inspect.isclass(value):
                methods = {inner: getattr(made, "__func__", made) for inner, made in vars(value).items()}
                made_here = {inner: made for inner, made in methods.items() if inspect.isfunction(made)}
                listed |= {f"{value.__qualname__}.{k}": made for k, made in made_here.items() if not k.startswith("_")}
            elif inspect.isfunction(value):
                listed[value.__qualname__] = value
    return listed


@pytest.mark.parametrize("name", sorted(functions()))
def test_every_public_function_says_what_it_takes_and_gives(name: str) -> None:
    function = functions()[name]
    text, signature = inspect.getdoc(function), inspect.signature(function)
    assert text
    takes = [parameter for parameter in signature.parameters if parameter not in ("self", "cls")]
    described = set(re.findall(r"^ {4}\**(\w+):", text.partition("Args:\n")[2].partition("\n\n")[0], re.MULTILINE))
    assert set(takes) <= described, f"Args: {set(takes) - described}"
    gives = bool(takes) and signature.return_annotation not in (None, "None", inspect.Signature.empty)
    assert not gives or re.search(r"^(Returns|Yields):$", text, re.MULTILINE), "Returns"
