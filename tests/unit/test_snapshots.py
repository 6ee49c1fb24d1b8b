"""Snapshots of training hosts: hosts as they were on the way, kept beside those at the end, and learned from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from paramtrans.api import modules
from paramtrans.api.job import Job
from paramtrans.api.stacking import Params
from paramtrans.backends import host_runner
from paramtrans.builder import Builder
from paramtrans.config import Config, HostTraining
from paramtrans.errors import ConfigError
from paramtrans.plugins import Plugins, components
from paramtrans.report.html import host_counts
from paramtrans.runs.planner import plan
from paramtrans.runs.run import Run
from paramtrans.storage import sealed_params
from paramtrans.storage.cache import cache_dir
from paramtrans.training.trainer import Trainer
from paramtrans.utils.progress import Reporter
from paramtrans.zoo import Zoo, do_job, exchange, host_training

pytestmark = pytest.mark.pipeline

Make = Callable[..., Config]
SNAPSHOTS = "zoo.snapshots=[0.5, 0.75]"
ROLES = ("train@0.5", "train@0.75")


def zoo_of(config: Config) -> Zoo:
    return Zoo(Builder(config, components()), cache_dir(config.run.cache))


def train(config: Config) -> tuple[Zoo, list[dict[str, Any]]]:
    """A config's zoo, and the jobs of step 1 that were done."""
    zoo = zoo_of(config)
    jobs = zoo.missing(1)
    for job in jobs:
        do_job(job, lambda count: None)
    return zoo, jobs


@pytest.fixture
def hosts_alone(tiny_config: Make) -> Make:
    """Makes the tiny config without step 2."""
    return lambda *settings: tiny_config("zoo.pairs=0", "evaluation.trained_target=false", *settings)


def files(zoo: Zoo) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(zoo.dir.rglob("*.safetensors"))}


def same(first: Params, second: Params) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


# On the way


@pytest.fixture(params=["cpu", "vmap"])
def builder(request: pytest.FixtureRequest, tiny_config: Make, monkeypatch: pytest.MonkeyPatch) -> Iterator[Builder]:
    built = Builder(tiny_config(), components())
    built.task.prepare(Path())
    if request.param == "vmap":
        monkeypatch.setattr("paramtrans.backends.cpu.stacked.supports", lambda module: False)
    yield built


def stopped(builder: Builder, options: HostTraining, seeds: list[int], stop: int) -> Params:
    """Hosts whose training ends early, in the plainest words: nothing of what it would have been is changed."""
    params = modules.initial(lambda: host_runner.network(builder.task, builder.source), seeds)
    network = host_runner.network_stacked(builder.task, builder.source, frozenset())
    names = modules.trained_names(host_runner.network(builder.task, builder.source))
    optimizer = torch.optim.SGD([params[name].requires_grad_() for name in params if name in names], options.lr, 0.9)
    length = options.length(0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, options.lr, total_steps=length + 1, cycle_momentum=False)
    batches = host_training.batches_of(builder.task, builder.task.split("train"), seeds, options.batch_size)
    for _ in range(stop):
        inputs, labels = next(batches)
        optimizer.zero_grad()
        builder.task.loss(network(params, inputs, training=True), labels).sum().backward()
        optimizer.step()
        schedule.step()
    return {name.replace("block.", "source.", 1): tensor.detach() for name, tensor in params.items()}


def test_a_snapshot_is_the_host_whose_training_stopped_there(builder: Builder) -> None:
    options = HostTraining(steps=8, batch_size=16, lr=0.05, schedule="one_cycle")
    kept: dict[int, Params] = {}
    final = host_training.train_hosts(
        builder.task, builder.source, options, [1, 2], at=range(9), keep=lambda n, hosts: kept.setdefault(n, hosts)
    )
    assert list(kept) == list(range(1, 9))
    assert same(kept[8], final) and not same(kept[7], final)
    assert same(kept[4], stopped(builder, options, [1, 2], 4))
    assert same(final, host_training.train_hosts(builder.task, builder.source, options, [1, 2]))


# On disk


def test_snapshots_stand_beside_hosts_that_stay_as_they_are(hosts_alone: Make, tmp_path: Path) -> None:
    alone, _ = train(hosts_alone(f"run.cache={tmp_path / 'alone'}"))
    zoo, jobs = train(hosts_alone(SNAPSHOTS))
    assert len(jobs) == 2 + 1 + 1 and zoo.missing(1) == []
    assert zoo.dir.name == alone.dir.name
    before, after = files(alone), files(zoo)
    assert {name: after[name] for name in before} == before
    assert after.keys() - before.keys() == {
        f"{role}-{at}.safetensors" for role in ROLES for at in ("0000000-0000003", "0000003-0000006")
    }
    assert zoo.load(ROLES[0]).seeds == zoo.load("train").seeds
    assert [zoo.count(role) for role in (*ROLES, "train", "select")] == [6, 6, 6, 2]


def test_a_snapshot_is_kept_at_its_share_of_step_one(hosts_alone: Make, tmp_path: Path) -> None:
    constant = "zoo.step1.schedule=constant"
    zoo, _ = train(hosts_alone(SNAPSHOTS, constant))
    for role, length in zip(ROLES, (4, 6), strict=True):
        shorter, _ = train(hosts_alone(constant, f"zoo.step1.steps={length}", f"run.cache={tmp_path / role}"))
        assert same(zoo.load(role).source, shorter.load("train").source)
        assert same(zoo.load(role).latter, shorter.load("train").latter)


def test_snapshots_asked_for_later_leave_finished_hosts_untouched(hosts_alone: Make, tmp_path: Path) -> None:
    train(hosts_alone())
    zoo, jobs = train(hosts_alone(SNAPSHOTS))
    assert [(job.role, list(job.snapshots)) for job in jobs] == 2 * [(ROLES[0], [ROLES[1]])]
    assert zoo.missing(1) == []
    together, _ = train(hosts_alone(SNAPSHOTS, f"run.cache={tmp_path / 'together'}"))
    assert files(zoo) == files(together)


def test_step_one_is_paid_for_once(hosts_alone: Make) -> None:
    zoo, _ = train(hosts_alone(SNAPSHOTS))
    paths = [path.with_suffix("") for path in zoo.dir.rglob("*.safetensors.json")]
    seconds = {path.name: sealed_params.load_record(path)["seconds"] for path in paths}
    assert all((value == 0) == ("@" in name) for name, value in seconds.items())
    assert zoo.seconds() == sum(value for name, value in seconds.items() if not name.startswith("report"))


def test_what_was_written_before_an_interruption_is_not_made_again(hosts_alone: Make, monkeypatch) -> None:
    zoo, save, saved = zoo_of(hosts_alone(SNAPSHOTS)), sealed_params.save_params, []

    def interrupted(path: Path, *rest: Any) -> None:
        if len(saved) == 2:
            raise KeyboardInterrupt
        saved.append(path)
        save(path, *rest)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(sealed_params, "save_params", interrupted)
        do_job(zoo.missing(1)[0], lambda count: None)
    before = files(zoo)
    assert len(before) == 2
    first, second, *_ = zoo.missing(1)
    assert (first.role, first.start, first.snapshots) == (ROLES[1], 0, {})
    assert (second.role, second.start, list(second.snapshots)) == ("train", 3, list(ROLES))
    train(hosts_alone(SNAPSHOTS))
    assert zoo.missing(1) == [] and {name: files(zoo)[name] for name in before} == before


def test_a_damaged_snapshot_is_reported_and_made_again_to_the_same_bits(hosts_alone: Make, caplog) -> None:
    zoo, _ = train(hosts_alone(SNAPSHOTS))
    before = files(zoo)
    path = zoo.dir / "hosts" / f"{ROLES[0]}-0000000-0000003.safetensors"
    path.write_bytes(path.read_bytes()[:-4] + b"abcd")
    _, again = train(hosts_alone(SNAPSHOTS))
    assert [(job.file, job.snapshots) for job in again] == [(path, {})]
    assert str(path) in caplog.text and "trained again" in caplog.text and files(zoo) == before


def test_a_fresh_run_makes_snapshots_again(hosts_alone: Make) -> None:
    zoo, jobs = train(hosts_alone(SNAPSHOTS))
    assert zoo.missing(1, zoo.newest()) == jobs


def test_snapshots_leave_and_enter_with_their_zoo(hosts_alone: Make, tmp_path: Path) -> None:
    zoo, _ = train(hosts_alone(SNAPSHOTS))
    zoo.write_recipe(1)
    zoo_contents = exchange.contents(zoo.dir)
    assert exchange.summary(zoo_contents)["hosts"] == {"train": 6, ROLES[0]: 6, ROLES[1]: 6, "select": 2, "report": 3}
    exchange.export(zoo_contents, tmp_path / "out")
    exchange.enter(exchange.contents(tmp_path / "out"), tmp_path / "other")
    other = zoo_of(hosts_alone(SNAPSHOTS, f"run.cache={tmp_path / 'other'}"))
    assert other.missing(1) == [] and files(other) == files(zoo)


# Learned from


def test_a_translator_learns_from_snapshots_too(tiny_config: Make, tiny_plugins: Plugins, monkeypatch) -> None:
    seen: list[int] = []
    step = Trainer.step

    def counted(self: Trainer, chosen: list[int], generator: torch.Generator) -> torch.Tensor:
        seen.extend(chosen)
        return step(self, chosen, generator)

    monkeypatch.setattr(Trainer, "step", counted)
    run_ = Run(tiny_config(SNAPSHOTS), "run", Reporter(), tiny_plugins)
    evaluation = run_.do(fresh=False).evaluation
    assert evaluation.zoo == {"train": 6, "select": 2, "report": 3, "snapshots": 12}
    assert sorted(seen) == sorted(4 * list(range(18)))
    train, pairs = run_.zoos.train(), run_.zoos.pairs()
    assert len(train) == 18 and train.target is None and pairs is not None and len(pairs) == 6
    assert len(torch.unique(train.source["conv1.weight"].flatten(1), dim=0)) == 18
    assert [len(hosts) for _, hosts in run_.zoos.select()] == [2] and len(run_.zoos.report()) == 3
    assert "12 snapshots" in host_counts(evaluation.zoo)
    for file in ("report.html", "translator/README.md"):
        assert "12 snapshots" in (run_.folder.path / file).read_text(encoding="utf-8")


def test_a_plan_counts_snapshots(tiny_config: Make, tiny_plugins: Plugins) -> None:
    def planned(*settings: str) -> Any:
        return plan(Run(tiny_config(*settings), "run", Reporter(), tiny_plugins))

    without, with_snapshots = planned(), planned(SNAPSHOTS)
    assert with_snapshots.hosts == {**without.hosts, "snapshots": 12} and "12 snapshots" in with_snapshots.describe()
    assert ", 3 report; 11 still to train" in without.describe()
    [hosts, targets] = without.folders
    assert with_snapshots.folders == {hosts: without.folders[hosts] // 11 * 23, targets: without.folders[targets]}
    train(tiny_config(SNAPSHOTS))
    assert planned(SNAPSHOTS).hosts["to_train"] == 0
    assert planned("zoo.snapshots=[0.25]").hosts["to_train"] == 6


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (['objectives=["mse"]'], r"zoo\.snapshots: have no trained target, but objective mse needs one"),
        (["zoo.snapshots=[0.5, 0.5]"], r"zoo\.snapshots: a share is named twice"),
        (["zoo.snapshots=[1.0]"], r"zoo\.snapshots\.0: Input should be less than 1, not 1\.0"),
        (["zoo.origin=paper"], r"zoo\.snapshots: hosts from elsewhere"),
    ],
)
def test_what_snapshots_cannot_be_is_refused(tiny_config: Make, tiny_plugins: Plugins, settings, message) -> None:
    with pytest.raises(ConfigError, match=message):
        Run(tiny_config(SNAPSHOTS, *settings), "run", Reporter(), tiny_plugins).check()


def test_a_job_with_snapshots_is_json(tiny_config: Make) -> None:
    job = zoo_of(tiny_config(SNAPSHOTS)).missing(1)[0]
    assert Job.model_validate_json(job.model_dump_json()) == job and job.snapshots
