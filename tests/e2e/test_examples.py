"""Every shipped example runs on its real data, made so small that it takes seconds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from paramtrans import config
from paramtrans.plugins import Plugins
from paramtrans.runs.run import run
from paramtrans.runs.sweep import expand, is_sweep

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
    "evaluation.examples=500",
    "training.batch_size=4",
)


# The paper's have a test of their own.
CONFIGS = sorted(p for p in EXAMPLES.rglob("*.toml") if p.name != "pyproject.toml" and p.parent.name != "paper")
RUNS = [path for path in CONFIGS if not is_sweep(path)]
FEW = (
    "mnist_conv_to_attn",
    "mnist_conv_to_separable",
    "learned_conv",
    "learned_families",
    "light_conv",
    "select_probes",
)
"""One for each thing that a config can ask for; the others differ from these in settings."""


@pytest.mark.parametrize("path", [path for path in CONFIGS if is_sweep(path)], ids=lambda path: path.stem)
def test_every_run_of_a_sweep_is_a_config(path: Path, fresh_plugins: Callable[[], Plugins]) -> None:
    members = expand(config.read(path), [], str(path))
    assert len(members) > 1
    assert all(config.validate(member.document, fresh_plugins().registry()) for member in members)


@pytest.mark.parametrize(
    "path",
    [path if path.stem in FEW else pytest.param(path, marks=pytest.mark.slow) for path in RUNS],
    ids=[path.stem for path in RUNS],
)
def test_it_runs(path: Path, fresh_plugins: Callable[[], Plugins], tmp_path: Path) -> None:
    loaded = fresh_plugins()
    for plugin in path.parent.glob("*.py"):
        loaded.load_file(plugin)
    settings = [*PICO, f"run.dir={tmp_path / 'run'}"]
    for i, method in enumerate(config.read(path).get("evaluation", {}).get("methods", [])):
        if "folder" in (method["translator"] if isinstance(method.get("translator"), dict) else {}):
            before = tmp_path / "before"  # what this config says to run first
            first = EXAMPLES / "quality" / f"{Path(method['translator']['folder']).name}.toml"
            run(config.load(first, loaded.registry(), [*PICO, f"run.dir={before}"]), loaded=loaded)
            settings.append(f"evaluation.methods.{i}.translator.folder={before}")
    resolved = config.load(path, loaded.registry(), settings)
    result = run(config.validate(short(resolved.model_dump(mode="json")), loaded.registry()), loaded=loaded)
    expected = {"source", *(part.name for part in resolved.evaluation.rivals)}
    expected |= {"trained_target"} if resolved.evaluation.trained_target else set()
    expected |= {method.label for method in resolved.evaluation.methods} | (
        {"translated"} if resolved.translator else set()
    )
    assert result.methods.keys() == expected
    for name, figures in result.methods.items():
        scores = result.evaluation.hosts.accuracies[name]
        assert figures["n"] == 2 and figures["mean"] == pytest.approx(statistics.fmean(scores))
        right = [score * 500 / 100 for score in scores if result.evaluation.metric.name == "accuracy"]
        assert right == pytest.approx([round(count) for count in right], abs=1e-6)  # so many of 500 examples
    if resolved.translator is not None:
        assert math.isfinite(result.evaluation.break_even.zoo_seconds)
    assert (tmp_path / "run" / "report.html").stat().st_size > 10_000
    assert list((tmp_path / "run" / "tensorboard").glob("events*"))


def short(document: dict[str, Any]) -> dict[str, Any]:
    """A config whose methods take two optimiser steps on a few probes."""
    for method in document["evaluation"]["methods"]:
        for part in [method["translator"], method["probes"], *method["then"]]:
            for option, least in (("steps", 2), ("count", 16)):
                if part is not None and option in part:
                    part[option] = least
    return document
