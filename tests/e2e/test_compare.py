"""Runs side by side: what differs is pointed out, and what cannot be compared is said."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from paramtrans.cli.main import main
from paramtrans.runs import compare

GOLDEN = Path(__file__).parents[1] / "golden" / "run"
CLI = [sys.executable, "-m", "paramtrans.cli.main"]
COLOUR = re.compile(r"\x1b\[[0-9;]*\b(3[0-9]|4[0-9]|9[0-7])m")


@pytest.fixture
def runs(tmp_path: Path) -> Callable[..., Path]:
    """Makes a finished run like the golden one, with other values."""

    def make(name: str, better: float = 0.0, seed: int = 0, **options: Any) -> Path:
        folder = tmp_path / name
        shutil.copytree(GOLDEN, folder)
        record, evaluation = (json.loads((folder / n).read_text()) for n in ("run.json", "evaluation.json"))
        record["config"]["translator"] |= options
        evaluation["hosts"]["seeds"][0] += seed
        values = [value + better for value in evaluation["hosts"]["accuracies"]["translated"]]
        evaluation["hosts"]["accuracies"]["translated"] = values
        evaluation["methods"]["translated"]["mean"] += better
        (folder / "run.json").write_text(json.dumps(record))
        (folder / "evaluation.json").write_text(json.dumps(evaluation))
        return folder

    return make


def do(capfd, *arguments: object) -> tuple[int, str, str]:
    capfd.readouterr()
    status = main([*map(str, arguments)])
    shown = capfd.readouterr()
    return status, shown.out, shown.err


def test_what_differs_is_pointed_out_and_nothing_else(runs, capfd) -> None:
    first, second = runs("one"), runs("other", better=3.0, width=8)
    comparison = json.loads(do(capfd, "compare", first, second, "--json")[1])
    assert comparison["runs"] == ["one", "other"] and comparison["same_hosts"]
    assert comparison["config"] == {"translator.width": {"one": 4, "other": 8}}
    assert comparison["versions"] == {}
    means = comparison["methods"]["translated"]
    assert means["other"]["mean"] - means["one"]["mean"] == pytest.approx(3.0)
    assert comparison["difference"]["other"]["mean"] == pytest.approx(3.0)
    assert comparison["difference"]["other"]["ci95"] == pytest.approx([3.0, 3.0])
    _, table, _ = do(capfd, "compare", first, second)
    assert "translator.width" in table and "host by host: +3.0" in table


def test_runs_on_different_hosts_are_not_subtracted(runs, capfd) -> None:
    first, second = runs("one"), runs("other", seed=1)
    comparison = json.loads(do(capfd, "compare", first, second, "--json")[1])
    assert not comparison["same_hosts"] and comparison["difference"] == {}
    assert "different hosts" in do(capfd, "compare", first, second)[1]


def test_runs_by_different_metrics_are_refused_in_a_line(runs, capfd) -> None:
    first, second = runs("one"), runs("other")
    evaluation = json.loads((second / "evaluation.json").read_text())
    by = {"name": "R²", "unit": "", "higher_is_better": True, "bounds": None, "digits": 3}
    (second / "evaluation.json").write_text(json.dumps(evaluation | {"format": 2, "metric": by}))
    status, out, err = do(capfd, "compare", first, second)
    assert (status, out) == (2, "") and err.count("\n") == 1
    assert str(second) in err and "R²" in err and "accuracy, %" in err


def test_a_page_is_written_in_which_names_are_data(runs, tmp_path, capfd) -> None:
    nasty = "<script>alert(1)</script>"
    first, second = runs("one"), runs("other", width=8, note=nasty)
    assert do(capfd, "compare", first, second, "--html", tmp_path / "page.html")[0] == 0
    page = (tmp_path / "page.html").read_text()
    assert page.count("<table") == 2 and "<svg" in page and "translator.width" in page
    assert "<script" not in page and "&lt;script" in page


@pytest.mark.parametrize("damage", ["missing", "running", "no json", "later format"])
def test_what_is_no_finished_run_is_refused_in_a_line(runs, tmp_path, capfd, damage: str) -> None:
    folder = runs("one")
    record = json.loads((folder / "run.json").read_text())
    changes = {"running": {"status": "running"}, "later format": {"format": 99}}
    if damage == "missing":
        (folder / "run.json").unlink()
    elif damage == "no json":
        (folder / "run.json").write_text("{")
    else:
        (folder / "run.json").write_text(json.dumps(record | changes[damage]))
    status, out, err = do(capfd, "compare", folder, "--html", tmp_path / "page.html")
    assert (status, out) == (2, "") and err.count("\n") == 1 and str(folder) in err
    assert not (tmp_path / "page.html").exists()


def test_a_run_given_twice_is_told(runs, capfd) -> None:
    folder = runs("one")
    assert "twice" in do(capfd, "compare", folder, folder, folder)[2]


def test_flat_paths_reach_into_lists() -> None:
    flat = dict(compare._flat({"a": {"b": 1}, "c": [{"name": "x"}], "d": [1, 2], "e": {}}))
    assert flat == {"a.b": 1, "c.0.name": "x", "d": [1, 2], "e": {}}


def on_a_terminal(*arguments: str, **env: str) -> str:
    """What a command writes where standard output is a terminal."""
    ours, theirs = pty.openpty()
    clean = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "FORCE_COLOR")}
    with subprocess.Popen([*CLI, *arguments], stdout=theirs, env={**clean, "TERM": "xterm-256color", **env}) as process:
        os.close(theirs)
        written = b""
        while piece := _read(ours):
            written += piece
    os.close(ours)
    assert process.returncode == 0
    return written.decode()


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # the other end is closed
        return b""


def test_colours_are_for_terminals_and_not_where_they_are_unwanted() -> None:
    arguments = ("compare", str(GOLDEN))
    assert COLOUR.search(on_a_terminal(*arguments))
    assert not COLOUR.search(on_a_terminal(*arguments, NO_COLOR="1"))
    piped = subprocess.run([*CLI, *arguments], capture_output=True, text=True, check=True)
    assert "\x1b" not in piped.stdout + piped.stderr
