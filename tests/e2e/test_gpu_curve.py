"""The curve of accuracy over pairs, at a size that says nothing, on the CPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_it_makes_pairs_trains_on_nested_parts_of_them_and_reports_on_others(tmp_path: Path) -> None:
    out, pairs = tmp_path / "curve.json", tmp_path / "pairs"
    settings = ["task.name=digits", "zoo.step1={steps=2}", "zoo.step2={steps=2}", "run.device=cpu"]
    command = [sys.executable, "examples/paper/gpu_curve.py", "--shard", "4", "--most", "8", "--report", "2"]
    command += ["--zoo", "1000", "--training", "0.1", "--sizes", "small", "--out", str(out), "--save", str(pairs)]
    command += [part for setting in settings for part in ("--set", setting)]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert finished.returncode == 0, finished.stderr
    results = json.loads(out.read_text())
    assert results["zoo"]["made"] == 8 and results["hosts"] == {"train": 6, "given": 17, "own": 2}
    assert sorted(point["pairs"] for point in results["points"]) == [1, 3, 6]
    for point in results["points"]:
        assert point["given"]["n"] == 17 and point["own"]["n"] == 2
    assert results["rivals"]["given"].keys() >= {"source network", "trained target", "zero block", "random init"}
    assert (pairs / "paper_pairs_0.safetensors").exists()
