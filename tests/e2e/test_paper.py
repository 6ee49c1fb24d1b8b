"""Every experiment of the paper runs from its file, at pico scale, and ends with its table or figure."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from paramtrans import config
from paramtrans.config import merge
from paramtrans.plugins import Plugins
from paramtrans.runs.planner import plan_sweep
from paramtrans.runs.run import Run
from paramtrans.runs.sweep import Sweep, is_sweep
from paramtrans.utils.progress import Reporter

PAPER = Path(__file__).parents[2] / "examples" / "paper"
FILES = sorted(PAPER.glob("*.toml"))
FEW = ("base", "fig8", "transfer")
"""A run, a figure over a sweep, and one with a zoo of its own; the others are further sweeps."""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for all, as they share their zoos."""
    return tmp_path_factory.mktemp("cache")


def from_file(path: Path, loaded: Plugins, *settings: str) -> Run | Sweep:
    if is_sweep(path):
        return Sweep(path, settings, Reporter(), loaded)
    return Run(config.load(path, loaded.registry(), settings), path.stem, Reporter(), loaded)


@pytest.mark.parametrize(
    "path",
    [path if path.stem in FEW else pytest.param(path, marks=pytest.mark.slow) for path in FILES],
    ids=[path.stem for path in FILES],
)
def test_it_runs(path: Path, fresh_plugins: Callable[[], Plugins], cache: Path, tmp_path: Path) -> None:
    settings = ("scale=pico", "run.device=cpu", f"run.cache={cache}", f"run.dir={tmp_path / 'run'}")
    from_file(path, fresh_plugins(), *settings).do(fresh=False)
    page = (tmp_path / "run" / "report.html").read_text()
    assert "<table>" in page and "<svg" in page
    for result in results(tmp_path / "run"):
        for name, scores in result["hosts"]["accuracies"].items():
            right = [score * result["examples"] / 100 for score in scores]
            assert right == pytest.approx([round(count) for count in right], abs=1e-6), name  # so many examples
            assert result["methods"][name]["mean"] == pytest.approx(statistics.fmean(scores))


def results(folder: Path) -> list[dict[str, Any]]:
    """What each run of a folder came to; a sweep says the same of its runs, without single hosts."""
    if not (folder / "sweep.json").exists():
        return [json.loads((folder / "evaluation.json").read_text())]
    runs = json.loads((folder / "sweep.json").read_text())["runs"]
    evaluations = [json.loads((folder / run["name"] / "evaluation.json").read_text()) for run in runs]
    assert evaluations and [run["methods"] for run in runs] == [result["methods"] for result in evaluations]
    return evaluations


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_its_options_are_sound_at_the_larger_scales(path: Path, fresh_plugins: Callable[[], Plugins]) -> None:
    loaded = fresh_plugins()
    for scale in ("full", "small"):
        from_file(path, loaded, f"scale={scale}")


def test_the_full_scale_has_the_papers_numbers(fresh_plugins: Callable[[], Plugins]) -> None:
    """300,000 pairs, SGD of 10 epochs at 0.01, batch 4,096, and the sizes of Table 2 with four rates of dropout."""
    sweep = from_file(PAPER / "table3.toml", fresh_plugins(), "scale=full")
    assert isinstance(sweep, Sweep)
    assert [member.name for member in sweep.members[::4]] == ["small-0.0", "base-0.0", "large-0.0", "wide-0.0"]
    for run in sweep.runs:
        zoo, training = run.config.zoo, run.config.training
        assert (zoo.train, zoo.report, training.epochs, training.batch_size) == (300_000, 100, 300, 4096)
        assert all(step.epochs == 10 and step.lr == 0.01 and step.batch_size == 128 for step in (zoo.step1, zoo.step2))
        assert run.config.task.options["flip"] is True and run.config.source.options["read"] == "weights"
        assert training.lr == 1e-3 and training.schedule == "cosine" and training.weight_decay == 0


def test_the_plan_of_the_full_scale_says_all_and_starts_nothing(
    fresh_plugins: Callable[[], Plugins], tmp_path: Path
) -> None:
    sweep = from_file(PAPER / "table3.toml", fresh_plugins(), "scale=full", "run.device=cpu", f"run.cache={tmp_path}")
    assert isinstance(sweep, Sweep)
    plan = plan_sweep(sweep)
    planned = plan.as_dict()
    assert (planned["zoos"], planned["translators"]) == (1, 16)
    assert sum(run["targets_to_train"] for run in planned["runs"]) == 300_100
    assert sum(run["hosts"]["to_train"] for run in planned["runs"]) == 300_200
    assert all(seconds > 0 for seconds in planned["seconds"].values())
    assert 8e9 < planned["disk_bytes"] < 9e9 and planned["runs"][0]["memory_bytes"] > planned["disk_bytes"]
    counted = {run["translator"]["parameters"] for run in planned["runs"]}
    assert counted == {1_385_965, 2_741_293, 4_096_621, 4_316_605}
    assert not (tmp_path / "zoos").exists()
    assert "16 runs, 1 zoo, 16 translators to train" in plan.describe()


def test_each_scale_is_offered_by_every_file() -> None:
    for path in FILES:
        assert merge.read(path)["scales"].keys() == {"full", "small", "pico"}, path
