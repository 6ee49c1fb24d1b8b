"""Step 2 from kept features of the former: the same targets, bit for bit, and only where it saves time and memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from paramtrans.api.stacking import Params
from paramtrans.api.task import Task
from paramtrans.config import HostTraining
from paramtrans.plugins import components
from paramtrans.utils import memory
from paramtrans.zoo import feature_cache, host_training

pytestmark = pytest.mark.pipeline

SEEDS = [3, 4, 5]


@pytest.fixture
def task(tmp_path: Path) -> Callable[..., Task]:
    """A hundred digits, mirrored at random or not."""

    def make(**options: object) -> Task:
        task: Task = components().create("task", "mnist", share=100 / 60_000, holdout=0, **options)
        task.prepare(tmp_path)
        return task

    return make


def targets(task: Task, block: str, options: HostTraining) -> Params:
    registry = components()
    source = registry.create("block_adapter", "basic_block", channels=6)
    target = registry.create("block_adapter", block, channels=6, **({"hidden": 3} if block == "conv" else {}))
    hosts = host_training.train_hosts(task, source, HostTraining(steps=2, batch_size=16), SEEDS)
    return host_training.train_targets(task, target, hosts, options, SEEDS)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("block", ["conv", "attention"])
def test_targets_are_the_same_bit_for_bit(
    task: Callable[..., Task], monkeypatch: pytest.MonkeyPatch, flip: bool, block: str
) -> None:
    options = HostTraining(epochs=6, batch_size=16, lr=0.05)
    given = task(flip=flip)
    caches: list[feature_cache.Features | None] = []
    keep = feature_cache.keep

    def noted(*args: object) -> feature_cache.Features | None:
        caches.append(keep(*args))  # type: ignore[arg-type]
        return caches[-1]

    monkeypatch.setattr(feature_cache, "keep", noted)
    kept = targets(given, block, options)
    monkeypatch.setattr(memory, "spare", lambda: 0)
    anew = targets(given, block, options)
    assert caches[0] is not None and caches[1] is None
    assert kept.keys() == anew.keys()
    assert all(torch.equal(kept[name], anew[name]) for name in kept)


def former(task: Task) -> Params:
    from paramtrans.api.modules import initial

    return initial(task.former, SEEDS)


def test_images_that_are_used_seldom_are_not_kept(task: Callable[..., Task]) -> None:
    once, mirrored = task(), task(flip=True)
    split = once.split("train")
    uses = len(split) * feature_cache.LEAST
    assert feature_cache.keep(once, split, former(once), uses) is not None
    assert feature_cache.keep(once, split, former(once), uses - 1) is None
    assert feature_cache.keep(mirrored, split, former(once), uses) is None
    assert feature_cache.keep(mirrored, split, former(once), 2 * uses) is not None


def test_a_task_with_changes_of_its_own_is_left_alone(
    task: Callable[..., Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = task()
    split, uses = given.split("train"), 10_000
    monkeypatch.setattr(type(given), "draws", lambda self, count, generator: torch.rand(count, generator=generator))
    assert feature_cache.keep(given, split, former(given), uses) is None
    monkeypatch.undo()
    monkeypatch.setattr(type(given), "augment", lambda self, raw, generator: raw)
    assert feature_cache.keep(given, split, former(given), uses) is None


def test_memory_to_spare_is_some_and_less_than_there_is() -> None:
    if not Path("/proc/meminfo").exists():
        assert memory.spare() == 0
        return
    total = int(Path("/proc/meminfo").read_text().split()[1]) * 1024
    assert 0 < memory.spare() < total / 2
