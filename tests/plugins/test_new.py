"""`paramtrans new plugin`: what it writes is installed beside this environment, passes its tests, and is checked."""

from __future__ import annotations

import json
import os
import subprocess
import tomllib
from pathlib import Path

import pytest

from paramtrans.errors import ConfigError, StoreError
from paramtrans.plugins.scaffold import new_plugin, rendered
from paramtrans.plugins.scaffold_kinds import NAMES
from tests.support import warm

SUPPORT = Path(__file__).parents[1] / "support"
FILES = {
    "README.md",
    "pyproject.toml",
    "acme_blocks/__init__.py",
    "acme_blocks/plugin.py",
    "acme_blocks/block.py",
    "acme_blocks/translator.py",
    "acme_blocks/augmenter.py",
    "tests/test_conformance.py",
}


def python(*arguments: str | Path, site: Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Python in a process that sees what is installed in `site`, beside this environment."""
    path = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])
    return warm.python([*map(str, arguments)], {**os.environ, "PYTHONPATH": path, **environment}, cwd, timeout=500)


def test_a_new_plugin_is_installed_passes_its_own_tests_and_is_checked(tmp_path: Path) -> None:
    done = python("-m", "paramtrans.cli.main", "new", "plugin", "acme-blocks", site=tmp_path, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folder, site = tmp_path / "acme-blocks", tmp_path / "site"
    assert set(done.stdout.split()) == {str(Path("acme-blocks") / file) for file in FILES}
    assert {str(p.relative_to(folder).as_posix()) for p in folder.rglob("*") if p.is_file()} == FILES
    pip = (
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--no-build-isolation",
        "--target",
        site,
        folder,
    )
    installed = python(*pip, site=tmp_path, cwd=tmp_path)
    assert installed.returncode == 0, installed.stderr
    tests = python("-m", "pytest", "-q", "-p", "no:cacheprovider", folder / "tests", site=site, cwd=folder)
    assert tests.returncode == 0 and " passed" in tests.stdout, tests.stdout
    checked = python("-m", "paramtrans.cli.main", "check", "acme-blocks", site=site, cwd=tmp_path)
    assert checked.returncode == 0 and checked.stdout.endswith("checks, all passed\n"), checked.stdout
    assert len((folder / "tests" / "test_conformance.py").read_text().splitlines()) <= 12


def test_a_beginning_of_every_kind_does_what_its_kind_promises(tmp_path: Path) -> None:
    new_plugin("acme-all", tmp_path, NAMES)
    folder, site = tmp_path / "acme-all", tmp_path / "site"
    pip = ("-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--target", site)
    assert python(*pip, folder, site=tmp_path, cwd=tmp_path).returncode == 0
    checked = python("-m", "paramtrans.cli.main", "check", "acme-all", "--json", site=site, cwd=tmp_path)
    results = json.loads(checked.stdout)
    assert checked.returncode == 0, [result for result in results if not result["passed"]] or checked.stderr
    unchecked = {"command", "pretrained_translator", "lifecycle"}
    assert {result["kind"] for result in results} == {*NAMES, "plugin"} - unchecked
    called = python("-m", "paramtrans.cli.main", "acme_all_command", str(folder), site=site, cwd=tmp_path)
    assert called.returncode == 0 and int(called.stdout) > 1000
    settings = {"task.name": "acme_all_task", "executor.name": "acme_all_executor", "run.device": "cpu"}
    arguments = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    lists = {
        "objectives": "objective",
        "evaluation.rivals": "rival",
        "evaluation.metrics": "metric",
        "evaluation.sections": "report_section",
    }
    for key, kind in lists.items():
        arguments += ["--set", f'{key}=["acme_all_{kind}"]']
    command = ["run", str(SUPPORT / "tiny.toml"), "--quiet", *arguments]
    stopped = python("-m", "paramtrans.cli.main", *command, site=site, cwd=tmp_path, ACME_ALL_SECONDS="0")
    assert stopped.returncode == 3 and "stopped: " in stopped.stderr, stopped.stderr
    done = python("-m", "paramtrans.cli.main", *command, site=site, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "runs" / "tiny" / "report.html").read_text()
    assert ">Machine</h2>" in page


def test_a_beginning_of_one_kind_has_that_alone(tmp_path: Path) -> None:
    folder = new_plugin("acme", tmp_path, ["task"])
    files = {p.relative_to(folder).as_posix() for p in folder.rglob("*.py")}
    assert files == {"acme/__init__.py", "acme/plugin.py", "acme/task.py", "tests/test_conformance.py"}


def test_its_readme_shows_configs_as_code() -> None:
    readme = rendered("acme", "acme", ["task", "augmenter"])["README.md"]
    assert tomllib.loads(readme.partition("```toml\n")[2].partition("```")[0]) == {
        "task": {"name": "acme_task"},
        "augmenters": [{"name": "acme_augmenter", "scale": 0.01}],
    }
    assert "```sh\npip install" in readme


@pytest.mark.parametrize(
    "text", [text for path, text in rendered("acme", "acme", NAMES).items() if path.endswith("py")]
)
def test_no_line_is_long(text: str) -> None:
    assert max(map(len, text.splitlines())) <= 120


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("Acme", "lower-case"),
        ("acme blocks", "lower-case"),
        ("../acme", "lower-case"),
        ("", "lower-case"),
        ("1st", "lower-case"),
        ("a" * 99, "lower-case"),
        ("acmé", "lower-case"),
        ("class", "word of Python"),
        ("paramtrans", "is installed"),
        ("json", "Python has a module"),
        ("paramtrans-blocks", "Python has a module"),
    ],
)
def test_names_that_cannot_be_or_are_taken_are_refused(tmp_path: Path, name: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        new_plugin(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_there_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "acme").mkdir()
    with pytest.raises(StoreError, match="is there already"):
        new_plugin("acme", tmp_path)
    assert list(tmp_path.rglob("*")) == [tmp_path / "acme"]


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be written: No such file"):
        new_plugin("acme", tmp_path / "nowhere")


def test_nothing_half_written_stays_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, *arguments: object, **options: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(StoreError, match="No space left"):
        new_plugin("acme", tmp_path)
    assert list(tmp_path.iterdir()) == []
