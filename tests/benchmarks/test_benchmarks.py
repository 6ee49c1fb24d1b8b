"""Every benchmark runs, made so small that its numbers say nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FIELDS = {"name", "against", "ratio", "spread", "unit", "ours", "theirs", "device"}


@pytest.mark.parametrize(
    ("only", "count"), [(("--only", "reading"), 1), pytest.param((), 9, marks=pytest.mark.slow)], ids=["one", "all"]
)
def test_every_row_is_measured_and_written(tmp_path: Path, only: tuple[str, ...], count: int) -> None:
    out = tmp_path / "benchmarks.json"
    command = [sys.executable, "-m", "benchmarks", "--pico", *only, "--out", str(out)]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert finished.returncode == 0, finished.stderr
    rows = json.loads(out.read_text())
    assert len(rows) == len({(row["name"], row["against"]) for row in rows}) == count
    for row in rows:
        assert "load" in row["device"]  # what else the machine did
        assert row.keys() == FIELDS
        assert row["ours"] > 0 and row["theirs"] > 0
        assert abs(row["ratio"] / (row["ours"] / row["theirs"]) - 1) < 0.02  # one round: the medians are its rates


@pytest.mark.parametrize(
    ("program", "small", "count"),
    [
        pytest.param("growth", ["--steps", "1", "--hosts", "1"], 3, marks=pytest.mark.slow),
        pytest.param("store_scale", ["--pairs", "64"], 6, marks=pytest.mark.slow),
        pytest.param(
            "translation",
            ["--images", "16", "--side", "64", "--only", "ResNet-50"],
            3,
            marks=pytest.mark.slow,
        ),
        pytest.param("features", ["--images", "128", "--rounds", "1"], 1, marks=pytest.mark.slow),
    ],
)
def test_every_table_is_measured_and_written(tmp_path: Path, program: str, small: list[str], count: int) -> None:
    out = tmp_path / "table.json"
    command = [sys.executable, "-m", f"benchmarks.{program}", *small, "--out", str(out)]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert finished.returncode == 0, finished.stderr
    table = json.loads(out.read_text())
    assert table.keys() == {"title", "text", "rows"} and len(table["rows"]) == count
    assert "load" in table["text"]
