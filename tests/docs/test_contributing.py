"""What contributors are told is there: paths, targets of make, forms; the workflows run the same commands."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

pytestmark = pytest.mark.docs

ROOT = Path(__file__).parents[2]
PAGES = ["CONTRIBUTING.md", "SECURITY.md", "news/README.md"]
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
INSIDE = ["architecture.md", "design.md", "trust.md", "formats.md", "scaling.md"]
"""Pages that name modules."""
CREATED = (".venv",)
"""What the first command makes."""


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def targets() -> set[str]:
    return set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def markers() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return {line.partition(":")[0] for line in project["tool"]["pytest"]["ini_options"]["markers"]}


@pytest.mark.parametrize("page", PAGES)
def test_paths_on_a_page_for_contributors_are_there(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    links = [target.partition("#")[0] for target in re.findall(r"\]\(([^)]+)\)", text)]
    quoted = re.findall(r"`(?:python )?([\w./-]+(?:/|\.md|\.toml|/run|\.py))`", text)
    missing = [path for path in links if not ((ROOT / page).parent / path).exists()]
    missing += [path for path in quoted if not (ROOT / path).exists() and not path.startswith(CREATED)]
    assert links and missing == []


def test_modules_that_the_pages_on_the_inside_name_are_there() -> None:
    text = "".join((ROOT / "docs" / page).read_text(encoding="utf-8") for page in INSIDE)
    named = set(re.findall(r"`([\w]+/[\w/]+\.py)`", text))
    assert named
    assert {path for path in named if not any((ROOT / above / path).is_file() for above in ("", "paramtrans"))} == set()


@pytest.mark.parametrize("page", PAGES)
def test_headings_that_are_linked_to_are_there(page: str) -> None:
    for target, heading in re.findall(r"\]\(([\w./]+)#([\w-]+)\)", (ROOT / page).read_text(encoding="utf-8")):
        lines = ((ROOT / page).parent / target).read_text(encoding="utf-8").splitlines()
        assert heading in [line.lstrip("# ").lower().replace(" ", "-") for line in lines if line.startswith("#")]


def test_every_marker_is_explained_to_contributors() -> None:
    assert markers() >= {"slow", "docs", "distributed", "browser"}
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert [
        marker for marker in markers() if f"`{marker}`" not in text and f"`@pytest.mark.{marker}`" not in text
    ] == []


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_run_what_everyone_runs(path: Path) -> None:
    jobs = read(path)["jobs"].values()
    run = [step["run"] for job in jobs for step in job["steps"] if "run" in step]
    assert len(run) == len(jobs)
    assert all(command == ".ci/run" or command.removeprefix("make ") in targets() for command in run)


def test_the_workflow_tries_every_python_and_system_that_is_offered() -> None:
    jobs = read(ROOT / ".github" / "workflows" / "ci.yml")["jobs"]
    least = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"].removeprefix(">=")
    assert jobs["linux"]["strategy"]["matrix"]["python"] == [least, "3.12", "3.13", "3.14"]
    assert {name.partition("-")[0] for name in jobs["fast"]["strategy"]["matrix"]["os"]} == {"macos", "windows"}


def test_hooks_before_a_commit_ask_no_other_repository() -> None:
    repositories = read(ROOT / ".pre-commit-config.yaml")["repos"]
    assert [repository["repo"] for repository in repositories] == ["local"]
    assert all(hook["entry"].startswith(".venv/bin/") for hook in repositories[0]["hooks"])


@pytest.mark.parametrize("path", [path for path in FORMS if path.stem != "config"], ids=lambda path: path.stem)
def test_a_form_asks_for_something_and_says_what_it_is_for(path: Path) -> None:
    form = read(path)
    assert form["name"] and form["description"]
    fields = [field for field in form["body"] if field["type"] != "markdown"]
    assert len({field["id"] for field in fields}) == len(fields)
    assert any(field.get("validations", {}).get("required") for field in fields)


def test_the_citation_is_of_this_version_and_names_the_paper() -> None:
    citation = read(ROOT / "CITATION.cff")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (citation["title"], citation["version"]) == (project["name"], project["version"])
    assert citation["abstract"] == project["description"]
    assert "2401.05772" in citation["references"][0]["identifiers"][0]["value"]


@pytest.fixture
def wheel() -> ModuleType:
    spec = importlib.util.spec_from_file_location("wheel", ROOT / ".ci" / "wheel.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(os.name == "nt", reason="pyenv stands in as a shell script")
def test_other_pythons_are_the_newest_of_each_version_that_is_offered(
    wheel: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = f"{sys.version_info.major}.{sys.version_info.minor}.0"
    versions = f"2.7.18\n3.10.13\n{here}\n3.98.1\n3.98.10\n3.98.9\n3.99.0\n3.99-dev\npypy3.10-7.3.15"
    pyenv = tmp_path / "pyenv"
    pyenv.write_text(f'#!/bin/sh\nif [ "$1" = root ]; then echo /there; else printf "{versions}"; fi\n')
    pyenv.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert wheel.others() == ["/there/versions/3.98.10/bin/python", "/there/versions/3.99.0/bin/python"]


def test_a_python_whose_packages_cannot_be_had_is_skipped_and_that_is_said(
    wheel: ModuleType, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wheel, "ROOM", 0)
    monkeypatch.setattr(wheel, "installed", lambda python, folder, patience: None)
    assert wheel.main([sys.executable, "tests"]) == 0
    assert "packages" in capfd.readouterr().out


def test_without_time_other_pythons_are_skipped_and_that_is_said(
    wheel: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert wheel.main(["--within", "0", sys.executable, "tests"]) == 0
    assert capsys.readouterr().out.startswith(f"skipped: the wheel on {sys.executable}: ")
