"""Every shipped example runs on real MNIST, made so small that it takes seconds."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest

from paramtrans import config
from paramtrans.engine import run
from paramtrans.plugins import Plugins

EXAMPLES = Path(__file__).parents[2] / "examples"
PICO = (
    "run.device=cpu",
    "zoo.train=4",
    "zoo.select=1",
    "zoo.report=2",
    "zoo.pairs=2",
    "zoo.shard=4",
    "zoo.step1.steps=2",
    "zoo.step2.steps=2",
    "training.epochs=1",
    "training.batch_size=4",
)
METHODS = {
    "source",
    "trained_target",
    "translated",
    "zero_block",
    "random_init",
    "random_replacement",
    "greedy_replacement",
}


@pytest.mark.parametrize(
    "path",
    sorted(path for path in EXAMPLES.rglob("*.toml") if path.name != "pyproject.toml"),
    ids=lambda path: path.stem,
)
def test_it_runs(path: Path, fresh_plugins: Callable[[], Plugins], tmp_path: Path) -> None:
    loaded = fresh_plugins()
    for plugin in path.parent.glob("*.py"):
        loaded.load_file(plugin)
    resolved = config.load(path, loaded.registry(), [*PICO, f"run.dir={tmp_path / 'run'}"])
    result = run(resolved, loaded=loaded)
    assert result.methods.keys() == METHODS
    assert all(0 <= found["mean"] <= 100 and found["n"] == 2 for found in result.methods.values())
    assert math.isfinite(result.evaluation["break_even"]["zoo_seconds"])
    assert (tmp_path / "run" / "report.html").stat().st_size > 10_000
    assert list((tmp_path / "run" / "tensorboard").glob("events*"))
