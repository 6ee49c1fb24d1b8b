"""A folder below `plugins/` is a first-party plugin; all lists of them in `pyproject.toml` are written from these."""

from __future__ import annotations

import importlib.util
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def lists() -> ModuleType:
    spec = importlib.util.spec_from_file_location("plugin_lists", ROOT / "plugins" / "lists.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def named(text: str) -> dict[str, list[str]]:
    """What each list of the project names."""
    project = tomllib.loads(text)
    tools = project["tool"]
    contracts: dict[str, Any] = {contract["type"]: contract for contract in tools["importlinter"]["contracts"]}
    return {
        "entry points": [*project["project"]["entry-points"]["paramtrans"].values()],
        "wheel": tools["hatch"]["build"]["targets"]["wheel"]["packages"],
        "root packages": tools["importlinter"]["root_packages"],
        "circles": contracts["acyclic_siblings"]["ancestors"],
        "core": contracts["forbidden"]["forbidden_modules"],
    }


def test_the_lists_are_those_of_the_folders(lists: ModuleType) -> None:
    folders = {path.parents[1].name for path in ROOT.glob("plugins/*/paramtrans_*/plugin.py")}
    assert lists.written(PROJECT, folders) == PROJECT, "run make plugins"


def test_a_folder_is_all_that_a_new_one_needs(lists: ModuleType, tmp_path: Path) -> None:
    for name in [*lists.folders(), "acme"]:
        module = tmp_path / name / f"paramtrans_{name}" / "plugin.py"
        module.parent.mkdir(parents=True)
        module.touch()
    before, after = named(PROJECT), named(lists.written(PROJECT, lists.folders(tmp_path)))
    assert {place: set(after[place]) - set(names) for place, names in before.items()} == {
        "entry points": {"paramtrans_acme.plugin"},
        "wheel": {"plugins/acme/paramtrans_acme"},
        "root packages": {"paramtrans_acme"},
        "circles": {"paramtrans_acme"},
        "core": {"paramtrans_acme"},
    }


def test_one_that_went_is_named_nowhere_and_nothing_else_changes(lists: ModuleType) -> None:
    left = [name for name in lists.folders() if name != "refit"]
    lines = PROJECT.splitlines()
    assert lists.written(PROJECT, left).splitlines() == [line for line in lines if "paramtrans_refit" not in line]
