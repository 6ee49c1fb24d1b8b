"""Tasks that are no images, through whole runs at small size."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from paramtrans import config, run
from paramtrans.plugins import components

EXAMPLES = Path(__file__).parents[3] / "examples" / "hosts"
SMALL = ["zoo.train=4", "zoo.select=2", "zoo.report=3", "zoo.pairs=4", "zoo.step1={steps=60, batch_size=64, lr=0.1}"]
SMALL += ["zoo.step2={steps=20, batch_size=64, lr=0.1}", "training.epochs=1", "evaluation.methods=[]", "run.device=cpu"]

REFIT = "evaluation.methods=[{label='refit', translator={name='refit'}, probes={name='images', count=16}}]"


@pytest.mark.pipeline
def test_rows_of_a_table_run_to_the_end_and_are_told_by_r2(tmp_path: Path) -> None:
    settings = [*SMALL, f"run.dir={tmp_path / 'run'}", f"run.cache={tmp_path / 'cache'}"]
    result = run(config.load(EXAMPLES / "table.toml", components(), settings))
    assert result.evaluation.metric.name == "R²" and result.methods["source"]["mean"] > 0.5
    assert "R² on 2,048 test examples, over the report hosts" in (result.dir / "report.html").read_text()


@pytest.mark.pipeline
def test_signals_leave_the_slot_in_another_shape_and_are_told_by_auc(tmp_path: Path) -> None:
    settings = [*SMALL, f"run.dir={tmp_path / 'run'}", f"run.cache={tmp_path / 'cache'}"]
    settings += ["zoo.train=2", "zoo.step1={steps=15, batch_size=16, lr=0.1}", "zoo.step2={steps=2, batch_size=4}"]
    settings += ["evaluation.examples=200", REFIT]
    result = run(config.load(EXAMPLES / "signal.toml", components(), settings))
    assert result.evaluation.metric.name == "AUC"
    means = {name: method["mean"] for name, method in result.methods.items()}
    assert means["zero_block"] == 0.5 < means["refit"] <= 1.0  # its skip is a convolution, so nothing is left


def test_the_table_is_the_same_each_time_and_its_noise_is_what_is_said() -> None:
    with_noise, without = (components().create("task", "friedman", noise=noise) for noise in (1.0, 0.0))
    for task in (with_noise, without):
        task.prepare(Path())
    labels = [task.split("train").labels for task in (with_noise, without)]
    with_noise.prepare(Path())
    assert torch.equal(with_noise.split("train").labels, labels[0])
    assert labels[1].mean().abs() < 0.05 and 0.95 < labels[1].std() < 1.05
    rows = without.split("test").inputs[0].double()
    wanted = 10 * torch.sin(torch.pi * rows[0] * rows[1]) + 20 * (rows[2] - 0.5) ** 2 + 10 * rows[3] + 5 * rows[4]
    assert without.split("test").labels[0] == pytest.approx(float(wanted - 14.4) / 4.9, abs=1e-5)
