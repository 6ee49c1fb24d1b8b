"""A folder below `plugins/` is a first-party plugin. What `pyproject.toml` still lacks of one is named here."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = {path.parent.name: path.parents[1].name for path in ROOT.glob("plugins/*/paramtrans_*/plugin.py")}
"""Import packages of first-party plugins, and the folder of each."""


@pytest.mark.parametrize("package", PACKAGES)
def test_a_first_party_plugin_is_named_wherever_it_has_to_be(package: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    folder, tools = PACKAGES[package], project["tool"]
    contracts = {contract["type"]: contract for contract in tools["importlinter"]["contracts"]}
    wanted = {
        "[project.entry-points.paramtrans]": (
            f"{package}.plugin",
            [*project["project"]["entry-points"]["paramtrans"].values()],
        ),
        "[tool.hatch.build.targets.wheel] packages": (
            f"plugins/{folder}/{package}",
            tools["hatch"]["build"]["targets"]["wheel"]["packages"],
        ),
        "[tool.importlinter] root_packages": (package, tools["importlinter"]["root_packages"]),
        "the contract on circles: ancestors": (package, contracts["acyclic_siblings"]["ancestors"]),
        "the contract on the core: forbidden_modules": (package, contracts["forbidden"]["forbidden_modules"]),
    }
    missing = [f"{place}: add {entry!r}" for place, (entry, there) in wanted.items() if entry not in there]
    assert not missing, "\n".join(missing)


def test_nothing_is_named_that_there_is_not() -> None:
    points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["paramtrans"]
    assert set(points.values()) == {"paramtrans.cli.plugin", *(f"{package}.plugin" for package in PACKAGES)}
