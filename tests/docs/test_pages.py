"""README is short, and pages and figures of results are what the programs in docs/ write from docs/results/."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytestmark = pytest.mark.docs

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES: dict[str, Callable[[Callable[[str], ModuleType]], str]] = {
    "quality.md": lambda program: program("render_quality").page(results("quality")),
    "quality-tables.md": lambda program: program("render_quality").tables(results("quality")),
    "real.md": lambda program: program("render_real").page(results("real")),
    "reproduction.md": lambda program: program("render_reproduction").page(),
    "exchangeable.md": lambda program: program("render_exchangeable").page(results("exchangeable")),
    "coverage.md": lambda program: program("render_coverage").page(results("coverage")),
    "architectures.md": lambda program: program("render_architectures").page(results("architectures")),
    "results.md": lambda program: program("render_results").page(),
}
FIGURES = sorted(path.stem for path in (DOCS / "figures").glob("*.svg"))


def results(name: str) -> Any:
    return json.loads((DOCS / "results" / f"{name}.json").read_text(encoding="utf-8"))


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """The programs of docs/, which import each other by name."""
    monkeypatch.syspath_prepend(str(DOCS))
    return importlib.import_module


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120


@pytest.mark.parametrize("page", PAGES)
def test_a_page_of_results_is_what_its_program_writes(page: str, program: Callable[[str], ModuleType]) -> None:
    written = (DOCS / page).read_text(encoding="utf-8")
    assert written == PAGES[page](program), "run the program that the page names"


def test_figures_are_those_that_are_drawn(program: Callable[[str], ModuleType]) -> None:
    assert sorted(program("render_figures").FIGURES_OF) == FIGURES


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_what_is_drawn(name: str, program: Callable[[str], ModuleType]) -> None:
    written = (DOCS / "figures" / f"{name}.svg").read_text(encoding="utf-8")
    assert written == program("render_figures").FIGURES_OF[name](), "run docs/render_figures.py"


def test_readme_says_how_many_architectures_become_smaller() -> None:
    rows = json.loads((DOCS / "results" / "coverage.json").read_text(encoding="utf-8"))
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    smaller = sum(bool(row.get("groups")) for row in rows)
    assert f"of {len(rows)} architectures of torchvision, timm and transformers {smaller} became smaller" in text


def test_readme_says_how_many_networks_its_figure_shows(program: Callable[[str], ModuleType]) -> None:
    figures, rows = program("render_figures"), program("summaries").quality_rows()
    hosts = {rows[experiment, "source"]["report_hosts"] for experiment in figures.WIDTHS.values()}
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [f"over {count} networks" in text for count in hosts] == [True]


def test_expected_changes_of_accuracy_are_those_that_were_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    row, page = importlib.import_module("benchmarks.expected").Row, (DOCS / "networks.md").read_text(encoding="utf-8")
    rows = [row(**values) for values in results("expected")]
    assert rows and all(measured.line() in page for measured in rows)
