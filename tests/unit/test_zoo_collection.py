"""Report hosts made otherwise than those learned from, several tasks, and translators that a sweep trains once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from paramtrans.config import Config
from paramtrans.errors import ConfigError, DataError
from paramtrans.plugins import Plugins
from paramtrans.runs.run import Run, run
from paramtrans.runs.sweep import Sweep
from paramtrans.training.trainer import Trainer
from paramtrans.utils.progress import Reporter

pytestmark = pytest.mark.pipeline

Make = Callable[..., Config]
TINY = Path(__file__).parents[1] / "support" / "tiny.toml"
MSE = 'objectives=["mse"]'
ALSO = 'zoo.also=[{name="tiny", channels=4}]'


def finished(config: Config, loaded: Plugins) -> Run:
    run_ = Run(config, "run", Reporter(), loaded)
    run_.do(fresh=False)
    return run_


def test_hosts_around_frozen_sources_keep_them_and_nothing_else(tiny_config: Make, tiny_plugins: Plugins) -> None:
    finished_run = finished(tiny_config("report.begin=around", "report.step1={steps=5, lr=0.1}"), tiny_plugins)
    before, after = finished_run.zoo.load("report"), finished_run.zoos.report()
    assert all(torch.equal(before.source[name], tensor) for name, tensor in after.source.items())
    assert all(not torch.equal(before.former[name], tensor) for name, tensor in after.former.items())
    assert all(not torch.equal(before.latter[name], tensor) for name, tensor in after.latter.items())


def test_hosts_trained_further_begin_where_they_stood(tiny_config: Make, tiny_plugins: Plugins) -> None:
    finished_run = finished(tiny_config("report.begin=further", "report.step1={steps=1, lr=1e-9}"), tiny_plugins)
    before, after = finished_run.zoo.load("report"), finished_run.zoos.report()
    weights = [name for name in before.latter if name.endswith("weight") and before.latter[name].ndim > 2]
    assert weights == ["1.weight"]
    for name in weights:
        torch.testing.assert_close(after.latter[name], before.latter[name])
        assert finished_run.zoos.reported.dir != finished_run.zoo.dir


def test_report_hosts_of_the_same_recipe_are_those_of_a_run_without_it(
    tiny_config: Make, tiny_plugins: Plugins, tmp_path: Path
) -> None:
    alone = finished(tiny_config(), tiny_plugins)
    other = finished(tiny_config('report.task={name="tiny", channels=4}', dir=tmp_path / "other"), tiny_plugins)
    assert other.zoo.count("report") == 0 and other.zoos.reported.dir == alone.zoo.dir
    assert alone.zoos.report().seeds == other.zoos.report().seeds


def test_report_hosts_that_begin_with_hosts_that_were_replaced_are_trained_again(
    tiny_config: Make, tiny_plugins: Plugins
) -> None:
    finished_run = finished(tiny_config("report.begin=around"), tiny_plugins)
    assert finished_run.zoos.reported.missing(1) == []
    [job] = [job for job in finished_run.zoo.missing(1, finished_run.zoo.newest()) if job.role == "report"]
    job.config["zoo"]["step1"]["lr"] = 0.01  # other parameters under the same name
    from paramtrans.zoo import do_job

    do_job(job, lambda steps: None)
    assert len(finished_run.zoos.reported.missing(1)) == 1


def test_a_translator_of_several_tasks_learns_from_the_hosts_of_each(tiny_config: Make, tiny_plugins: Plugins) -> None:
    finished_run = finished(tiny_config(MSE, ALSO), tiny_plugins)
    assert finished_run.zoos.used() == {"train": 12, "select": 4, "report": 3}
    train = finished_run.zoos.train()
    assert len(train) == 12 and train.target is not None and len(set(train.seeds)) == 6
    assert [len(hosts) for _, hosts in finished_run.zoos.select()] == [2, 2]


def test_an_objective_that_looks_at_examples_cannot_learn_from_several_tasks(
    tiny_config: Make, tiny_plugins: Plugins
) -> None:
    with pytest.raises(ConfigError, match=r"zoo\.also: objective functional looks at examples"):
        run(tiny_config(ALSO), loaded=tiny_plugins)


def test_a_further_task_has_the_same_slot(tiny_config: Make, tiny_plugins: Plugins) -> None:
    with pytest.raises(ConfigError, match=r"task tiny: channels: .*\b4\b.*\b6\b"):
        run(tiny_config('report.task={name="tiny", channels=6}'), loaded=tiny_plugins)


def test_given_report_hosts_are_not_made_otherwise(tiny_config: Make) -> None:
    with pytest.raises(ConfigError, match=r"report: .*zoo\.report_from"):
        tiny_config("report.begin=further", "zoo.report_from=hosts.safetensors")


SWEEP = f"""
extends = "{TINY}"
run.device = "cpu"
[sweep]
figure = "gain"
columns = ["gain", "translated_seconds"]
optional = ["absent"]
[sweep.cases.fresh.report]
begin = "fresh"
[sweep.cases.around.report]
begin = "around"
[sweep.cases.absent.report.task]
name = "usps"
channels = 4
"""


def test_a_sweep_trains_each_translator_once_and_goes_on_without_missing_data(
    tiny_plugins: Plugins, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "x.toml").write_text(SWEEP)
    sweep = Sweep(tmp_path / "x.toml", [f"run.dir={tmp_path / 'x'}"], Reporter(), tiny_plugins)
    trained = []
    learn = Trainer.run

    def counted(self: Trainer, *args: object) -> object:
        trained.append(self)
        return learn(self, *args)  # type: ignore[arg-type]

    def absent(*args: object) -> None:
        raise DataError("USPS: not found")

    monkeypatch.setattr(Trainer, "run", counted)
    monkeypatch.setattr("paramtrans_mnist.tasks._download", absent)
    results = sweep.do()
    assert len(trained) == 1
    assert "absent is left out: USPS: not found" in caplog.text
    fresh, around = results.rows
    assert fresh["training"] == around["training"] and fresh["methods"] != around["methods"]
    curves = [(tmp_path / "x" / row["name"] / "metrics.jsonl").read_text() for row in results.rows]
    assert curves[0] == curves[1] and len(json.loads(curves[0].splitlines()[-1]))
    assert "gain" in (tmp_path / "x" / "report.html").read_text()
