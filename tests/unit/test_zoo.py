"""Zoos: one recipe one folder, hosts that depend on their seed alone, and shards that are whole or made again."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from paramtrans import run
from paramtrans.api import stacking as stacks
from paramtrans.api.hosts import Hosts
from paramtrans.api.job import Job
from paramtrans.api.modules import initial
from paramtrans.api.stacking import Params
from paramtrans.builder import Builder
from paramtrans.config import Config, HostTraining
from paramtrans.errors import TrainingError
from paramtrans.evaluation.metrics import measured
from paramtrans.plugins import components
from paramtrans.storage import sealed_params
from paramtrans.storage.cache import cache_dir
from paramtrans.utils.seeds import derive
from paramtrans.zoo import ROLES, Zoo, do_job, host_training
from paramtrans.zoo.host_seeds import host_seed
from paramtrans.zoo.recipe import hosts_digest, shards

pytestmark = pytest.mark.pipeline

Make = Callable[..., Config]


def zoo_of(config: Config) -> Zoo:
    return Zoo(Builder(config, components()), cache_dir(config.run.cache))


def train(config: Config) -> tuple[Zoo, list[dict[str, Any]]]:
    """Both steps of a config's zoo, and the jobs that were done."""
    zoo, done = zoo_of(config), []
    for step in (1, 2):
        for job in zoo.missing(step):
            do_job(job, lambda count: None)
            done.append(job)
    return zoo, done


def files(zoo: Zoo) -> dict[str, bytes]:
    """The parameters of all shards, by path below the zoo."""
    return {str(path.relative_to(zoo.dir)): path.read_bytes() for path in sorted(zoo.dir.rglob("*.safetensors"))}


def same(first: Params, second: Params) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def same_hosts(first: Hosts, second: Hosts) -> bool:
    return first.parts().keys() == second.parts().keys() and all(
        same(params, second.parts()[part]) for part, params in first.parts().items()
    )


# Recipes


@pytest.mark.parametrize(
    "setting",
    [
        "task.channels=8",
        "source.hidden=3",
        "source.kernel=1",
        "source=mlp_of_four",
        "zoo.seed=1",
        "zoo.shard=2",
        "zoo.step1.steps=9",
        "zoo.step1.batch_size=8",
        "zoo.step1.lr=0.06",
        "zoo.step1.momentum=0.5",
        "zoo.step1.weight_decay=0.1",
        'zoo.step1.schedule="cosine"',
        "zoo.step1={epochs=2}",
    ],
)
def test_whatever_changes_a_host_changes_the_folder_of_its_zoo(tiny_config: Make, setting: str) -> None:
    setting = setting.replace("mlp_of_four", "{name='mlp', channels=4, hidden=3}")
    assert zoo_of(tiny_config(setting)).dir != zoo_of(tiny_config()).dir


@pytest.mark.parametrize(
    "setting",
    [
        *("target.hidden=3", "target.bias=true", "target={name='attention', channels=4}"),
        *("zoo.step2.lr=0.1", "zoo.step2.steps=7", "zoo.step2.batch_size=4"),
    ],
)
def test_what_changes_targets_alone_keeps_the_hosts_and_changes_the_targets_folder(tiny_config, setting: str) -> None:
    before, after = zoo_of(tiny_config()), zoo_of(tiny_config(setting))
    assert before.dir == after.dir
    assert before.target_dir != after.target_dir


@pytest.mark.parametrize(
    "setting",
    [
        *("zoo.train=60", "zoo.select=5", "zoo.report=9", "zoo.pairs=2", "translator.layers=2", "translator=mlp"),
        "zoo.snapshots=[0.5]",
        *("objectives=['mse']", "objectives.0.examples=9", "augmenters=[]", "training.epochs=9", "training.seed=4"),
        *("evaluation.seed=3", "evaluation.rivals=[]", "evaluation.trained_target=false", "run.dir=elsewhere"),
    ],
)
def test_counts_and_later_stages_leave_the_zoo_where_it_is(tiny_config: Make, setting: str) -> None:
    before, after = zoo_of(tiny_config()), zoo_of(tiny_config(setting))
    assert (before.dir, before.target_dir) == (after.dir, after.target_dir)


def test_the_recipe_is_the_same_whatever_the_order_in_the_file(tiny_config: Make) -> None:
    reordered = tiny_config("zoo.step1={schedule='one_cycle', lr=0.05, batch_size=16, steps=8, momentum=0.9}")
    assert zoo_of(reordered).dir == zoo_of(tiny_config()).dir


@pytest.mark.parametrize(("count", "size"), [(0, 3), (1, 3), (3, 3), (7, 3), (7, 1), (2, 16)])
def test_shards_cover_every_host_once(count: int, size: int) -> None:
    covering = shards("train", count, size)
    assert [n for shard in covering for n in range(shard.start, shard.stop)] == list(range(count))
    assert all(0 < shard.stop - shard.start <= size for shard in covering)
    assert len({shard.file for shard in covering}) == len(covering)


# Steps 1 and 2


def test_no_host_is_in_two_roles_or_two_zoos() -> None:
    seeds = [host_seed(zoo, role, n) for zoo in range(3) for role in ROLES for n in range(1000)]
    assert len(set(seeds)) == len(seeds)


def test_hosts_come_with_their_seeds_and_share_nothing_between_roles(tiny_config: Make) -> None:
    zoo, _ = train(tiny_config())
    loaded = {role: zoo.load(role) for role in ROLES}
    assert {role: len(hosts) for role, hosts in loaded.items()} == {"train": 6, "select": 2, "report": 3}
    for role, hosts in loaded.items():
        assert hosts.seeds == tuple(host_seed(0, role, n) for n in range(len(hosts)))
    every = torch.cat([hosts.source["conv1.weight"].flatten(1) for hosts in loaded.values()])
    assert len(torch.unique(every, dim=0)) == 11


def test_step_one_learns(tiny_config: Make) -> None:
    config = tiny_config("zoo.step1={steps=80, batch_size=16, lr=0.1}", "evaluation.rivals=[]", "training.epochs=1")
    zoo, _ = train(config)
    builder = Builder(config, components())
    builder.task.prepare(Path())
    hosts = zoo.load("report")
    blocks, metrics = {"source": (builder.runner.source, hosts.source)}, {"accuracy": builder.metric}
    values = measured(builder.runner, hosts, blocks, builder.task.split("test"), metrics)
    assert values["accuracy"]["source"].min() > 60  # of four classes


def test_step_two_leaves_former_source_and_latter_bit_for_bit(tiny_config: Make) -> None:
    config = tiny_config()
    zoo = zoo_of(config)
    for job in zoo.missing(1):
        do_job(job, lambda count: None)
    before = files(zoo)
    for job in zoo.missing(2):
        do_job(job, lambda count: None)
    after = files(zoo)
    assert {name: after[name] for name in before} == before
    assert {name.split("/")[0] for name in after.keys() - before.keys()} == {"targets"}
    assert zoo.load("train").target is not None


def test_step_two_trains_the_target(tiny_config: Make) -> None:
    config = tiny_config()
    zoo, _ = train(config)
    start = initial(
        Builder(config, components()).target.module, [derive(host_seed(0, "train", n), "step2") for n in range(6)]
    )
    target = zoo.load("train").target
    assert target is not None and target.keys() == start.keys()
    for name, tensor in target.items():
        moved = (tensor - start[name]).flatten(1).abs().amax(1)
        assert (moved > 0).all() and (moved < 1).all()


@pytest.mark.parametrize("part", ["former", "latter"])
def test_a_frozen_part_that_changes_in_step_two_is_an_error(tiny_config: Make, monkeypatch, part: str) -> None:
    config = tiny_config()
    builder = Builder(config, components())
    builder.task.prepare(Path())
    hosts = host_training.train_hosts(builder.task, builder.source, HostTraining(steps=1), [1, 2])
    plain = host_training.host_runner.network_stacked

    def meddling(*args: Any) -> Any:
        inner = plain(*args)

        def call(params: Params, inputs: torch.Tensor, training: bool = False) -> torch.Tensor:
            next(t for name, t in params.items() if name.startswith(part)).view(torch.int32).bitwise_xor_(1)
            return inner(params, inputs, training)

        return call

    monkeypatch.setattr(host_training.host_runner, "network_stacked", meddling)
    with pytest.raises(TrainingError, match=rf"step 2 changed {part}\."):
        host_training.train_targets(builder.task, builder.target, hosts, HostTraining(steps=1), [1, 2])


def test_a_host_is_the_same_whatever_hosts_stand_beside_it(tiny_config: Make) -> None:
    builder = Builder(tiny_config(), components())
    builder.task.prepare(Path())
    training = HostTraining(steps=5, batch_size=16, lr=0.05)
    three = host_training.train_hosts(builder.task, builder.source, training, [11, 12, 13])
    alone = host_training.train_hosts(builder.task, builder.source, training, [12])
    for name, tensor in alone.items():
        torch.testing.assert_close(three[name][1:2], tensor, rtol=1e-4, atol=1e-5)


def test_a_job_is_json_reports_all_its_steps_and_gives_the_same_bits_again(tiny_config: Make) -> None:
    zoo = zoo_of(tiny_config())
    for step, length in ((1, 8), (2, 6)):
        for job in zoo.missing(step):
            reported: list[int] = []
            do_job(Job.model_validate_json(job.model_dump_json()), reported.append)
            assert sum(reported) == length
    before = files(zoo)
    shutil.rmtree(zoo.dir)
    train(tiny_config())
    assert files(zoo) == before


def test_a_job_interrupted_in_the_middle_writes_nothing(tiny_config: Make) -> None:
    zoo = zoo_of(tiny_config())
    job = zoo.missing(1)[0]

    def interrupt(count: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        do_job(job, interrupt)
    assert not [path for path in zoo.dir.rglob("*") if path.is_file()]
    assert zoo.missing(1)[0] == job


# Reuse


def test_a_finished_zoo_has_nothing_missing(tiny_config: Make) -> None:
    zoo, jobs = train(tiny_config())
    assert len(jobs) == (2 + 1 + 1) + (2 + 1)
    assert zoo.missing(1) == zoo.missing(2) == []


def test_a_growing_zoo_trains_only_what_is_new(tiny_config: Make) -> None:
    small, _ = train(tiny_config())
    before = files(small)
    large, jobs = train(tiny_config("zoo.train=9", "zoo.report=6"))
    assert [(job.step, job.role, job.start, job.stop) for job in jobs] == [
        (1, "train", 6, 9),
        (1, "report", 3, 6),
        (2, "train", 6, 9),
        (2, "report", 3, 6),
    ]
    after = files(large)
    assert {name: after[name] for name in before} == before
    assert same_hosts(large.load("train").pick(range(6)), small.load("train"))


def test_another_target_reuses_all_hosts(tiny_config: Make) -> None:
    train(tiny_config())
    _, jobs = train(tiny_config("target={name='mlp', channels=4, hidden=3}"))
    assert {job.step for job in jobs} == {2}


def test_fewer_pairs_than_hosts_are_pairs_beside_hosts_without_targets(tiny_config: Make) -> None:
    full, _ = train(tiny_config())
    paired, jobs = train(tiny_config("zoo.pairs=4"))
    assert [(job.start, job.stop) for job in jobs] == [(3, 4)]
    pairs = paired.pairs()
    assert len(paired.load("train")) == 6 and paired.load("train").target is None
    assert pairs is not None and len(pairs) == 4 and pairs.seeds == full.load("train").seeds[:4]
    assert same(pairs.source, stacks.take(full.load("train").source, range(4)))
    for name, tensor in pairs.target.items():
        torch.testing.assert_close(tensor, full.load("train").target[name][:4], rtol=1e-4, atol=1e-5)


def test_no_pairs_are_none(tiny_config: Make) -> None:
    zoo, _ = train(tiny_config("zoo.pairs=0", "evaluation.trained_target=false"))
    assert zoo.pairs() is None and zoo.load("report").target is None
    assert zoo.seconds_per_target() is None


def test_starting_over_trains_each_shard_again_once_and_takes_none_away_from_others(tiny_config: Make) -> None:
    """Another process may be reading the zoo, so shards are replaced, never deleted."""
    zoo, jobs = train(tiny_config())
    outdated = zoo.newest()
    assert outdated > 0 and zoo.missing(1) == []
    left = len(jobs)
    for step in (1, 2):
        for job in zoo.missing(step, outdated):
            assert zoo.missing(1) == zoo.missing(2) == []
            do_job(job, lambda count: None)
            left -= 1
    assert left == 0 and zoo.missing(1, outdated) == zoo.missing(2, outdated) == []


def test_starting_over_leaves_the_shards_of_larger_zoos_alone(tiny_config: Make) -> None:
    train(tiny_config("zoo.train=9"))
    small = zoo_of(tiny_config())
    assert {job.stop for job in small.missing(1, small.newest())} == {2, 3, 6}


@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\xff"], ids=repr)
def test_a_damaged_recipe_is_reported_and_written_again(tiny_config: Make, caplog, step: int, content: bytes) -> None:
    zoo = zoo_of(tiny_config())
    zoo.write_recipe(step)
    path = zoo.folder(step)[0] / "recipe.json"
    whole = path.read_bytes()
    zoo.write_recipe(step)
    assert not caplog.records
    path.write_bytes(content)
    zoo.write_recipe(step)
    [warning] = caplog.records
    assert str(path) in warning.getMessage() and path.read_bytes() == whole


def test_a_recipe_that_is_gone_is_reported_where_there_are_shards(tiny_config: Make, caplog) -> None:
    for step in (1, 2):
        zoo_of(tiny_config()).write_recipe(step)
    zoo, _ = train(tiny_config())
    paths = [zoo.folder(step)[0] / "recipe.json" for step in (1, 2)]
    whole = [path.read_bytes() for path in paths]
    caplog.clear()
    for step, path in enumerate(paths, 1):
        path.unlink()
        zoo.write_recipe(step)
    assert [str(path) in record.getMessage() for path, record in zip(paths, caplog.records, strict=True)] == [
        True,
        True,
    ]
    assert [path.read_bytes() for path in paths] == whole


# Damage


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def edit_record(path: Path) -> None:
    place = sealed_params.record_path(path)
    place.write_text(place.read_text().replace('"start": 0', '"start": 1'))


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "truncated": truncate,
    "flipped bit": flip,
    "empty": lambda path: path.write_bytes(b""),
    "parameters missing": lambda path: path.unlink(),
    "record edited": edit_record,
    "record empty": lambda path: sealed_params.record_path(path).write_bytes(b""),
    "parameters of another shard": lambda path: shutil.copy(next(others(path)), path),
}


def others(path: Path):
    return (other for other in sorted(path.parent.glob("*.safetensors")) if other != path)


@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_shard_is_reported_and_made_again_to_the_same_bits(tiny_config, caplog, damage, step: int) -> None:
    zoo, jobs = train(tiny_config())
    before = files(zoo)
    path = next(job.file for job in jobs if job.step == step and job.role == "train")
    damage(path)
    with caplog.at_level(logging.WARNING):
        _, again = train(tiny_config())
    assert [job.file for job in again] == [path]
    [warning] = [record.getMessage() for record in caplog.records]
    assert str(path) in warning and "trained again" in warning
    assert files(zoo) == before


@pytest.mark.parametrize("step", [1, 2])
def test_a_shard_swapped_whole_with_another_is_noticed(tiny_config: Make, step: int) -> None:
    """Parameters and record of other hosts fit each other, but they are the wrong hosts."""
    zoo, jobs = train(tiny_config())
    path = next(job.file for job in jobs if job.step == step and job.role == "train")
    other = next(job.file for job in jobs if job.step == step and job.role == "report")
    for place in (lambda path: path, sealed_params.record_path):
        shutil.copy(place(other), place(path))
    assert [job.file for job in zoo.missing(step)] == [path]


def test_a_shard_without_record_is_reported_and_made_again(tiny_config, caplog) -> None:
    zoo, jobs = train(tiny_config())
    before = files(zoo)
    sealed_params.record_path(jobs[0].file).unlink()
    _, again = train(tiny_config())
    assert [job.file for job in again] == [jobs[0].file]
    [warning] = caplog.records
    assert str(jobs[0].file) in warning.getMessage() and files(zoo) == before


def test_a_run_over_a_damaged_zoo_gives_the_same_methods(tiny_config, tiny_plugins, tmp_path, caplog) -> None:
    first = run(tiny_config(), loaded=tiny_plugins)
    for path in sorted(cache_dir().rglob("*.safetensors")):
        flip(path)
    again = run(tiny_config(dir=tmp_path / "other"), loaded=tiny_plugins)
    assert again.methods == first.methods
    assert len([r for r in caplog.records if "trained again" in r.getMessage()]) == 7


# Divergence


def poison(zoo: Zoo, role: str, number: int, step: int = 1) -> int:
    """Make one host's parameters what they are after divergence; returns its seed."""
    path = Path(zoo._path(step, (zoo.host_shards if step == 1 else zoo.target_shards)(role)[number // 3]))
    params, record = sealed_params.load_params(path)
    name = next(name for name in params if name.startswith("source" if step == 1 else "target"))
    params[name][number % 3].view(-1)[0] = float("nan") if number % 2 else float("inf")
    sealed_params.save_params(path, params, {k: v for k, v in record.items() if k not in ("bytes", "sha256")})
    if step == 1 and role != "select":  # step 2 is then trained in the host as it is now
        target = next(p for p in zoo.target_dir.glob(f"{role}-*.safetensors") if p.name == path.name)
        params, _ = sealed_params.load_params(target)
        kept = {k: v for k, v in sealed_params.load_record(target).items() if k not in ("bytes", "sha256")}
        sealed_params.save_params(
            target,
            params,
            {**kept, "hosts_sha256": hosts_digest(sealed_params.load_params(path)[0], len(record["seeds"]))},
        )
    return int(record["seeds"][number % 3])


@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("number", [0, 4])
def test_a_diverged_host_is_left_out_with_a_warning_and_changes_no_other(tiny_config, caplog, step, number) -> None:
    zoo, _ = train(tiny_config())
    before = zoo.load("train")
    lost = poison(zoo, "train", number, step)
    after = zoo.load("train")
    kept = [n for n in range(6) if n != number]
    assert same_hosts(after, before.pick(kept)) and after.seeds == before.pick(kept).seeds
    assert any(str(lost) in r.getMessage() and "diverged" in r.getMessage() for r in caplog.records)
    pairs = zoo.pairs()
    assert pairs is not None and pairs.seeds == after.seeds


def test_a_host_that_diverged_in_step_one_does_not_stop_step_two_of_the_others(tiny_config: Make) -> None:
    whole = train(tiny_config())[0].load("train")
    zoo = zoo_of(tiny_config())
    shutil.rmtree(zoo.target_dir)
    for part in ("former.0.weight", "former.1.running_var", "source.conv1.weight", "latter.1.weight"):
        path = Path(zoo._path(1, zoo.host_shards("train")[0]))
        params, record = sealed_params.load_params(path)
        params[part][1] = float("nan")
        sealed_params.save_params(path, params, {k: v for k, v in record.items() if k not in ("bytes", "sha256")})
    train(tiny_config())
    assert same_hosts(zoo.load("train"), whole.pick([0, 2, 3, 4, 5]))


def test_a_run_goes_on_without_its_diverged_hosts(tiny_config, tiny_plugins, tmp_path, caplog) -> None:
    whole = run(tiny_config("training.epochs=2", "evaluation.rivals=['zero_block']"), loaded=tiny_plugins)
    lost = poison(zoo_of(tiny_config()), "report", 1)
    again = tiny_config("training.epochs=2", "evaluation.rivals=['zero_block']", dir=tmp_path / "other")
    result = run(again, loaded=tiny_plugins)
    assert {summary["n"] for summary in result.methods.values()} == {2}
    assert result.as_dict()["zoo"]["report"] == 2
    assert lost not in result.evaluation.hosts.seeds
    for method, values in whole.evaluation.hosts.accuracies.items():
        assert result.evaluation.hosts.accuracies[method] == [values[0], values[2]]
    assert any(str(lost) in record.getMessage() for record in caplog.records)


def test_too_few_finite_hosts_are_an_error_that_says_what_to_do(tiny_config: Make) -> None:
    zoo, _ = train(tiny_config())
    poison(zoo, "select", 0)
    poison(zoo, "select", 1)
    with pytest.raises(TrainingError, match=r"no select hosts.*zoo\.step1\.lr"):
        zoo.load("select")


def test_divergence_of_every_host_is_an_error_and_no_crash(tiny_config: Make, tiny_plugins) -> None:
    with pytest.raises(TrainingError, match=r"zoo\.step1\.lr"):
        run(tiny_config("zoo.step1={steps=20, lr=1e30, batch_size=16}"), loaded=tiny_plugins)


def test_one_selection_host_is_as_good_as_the_config_says(tiny_config: Make) -> None:
    """The config allows a single selection host, so a zoo with one must load."""
    zoo, _ = train(tiny_config("zoo.select=1"))
    assert len(zoo.load("select")) == 1


def test_one_training_host_is_as_good_as_the_config_says(tiny_config: Make, tiny_plugins) -> None:
    assert run(tiny_config("zoo.train=1"), loaded=tiny_plugins).as_dict()["zoo"]["train"] == 1
