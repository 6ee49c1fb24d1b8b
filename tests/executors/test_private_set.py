"""A set of plugins that a caller makes reaches everything: shards in this process, in others, and on a Ray cluster."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from paramtrans import config, run
from paramtrans.api.specs import Component, RunInfo
from paramtrans.errors import UnknownName
from paramtrans.plugins import Plugins, hookimpl, manager
from paramtrans.plugins.registry import Provider

TWO = 'executor={ name = "local", processes = 2 }'
RAY = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}


@pytest.fixture
def private(fresh_plugins: Callable[[], Plugins], support: Path) -> Plugins:
    """Plugins with the tiny task, which those of this process are without."""
    fresh_plugins()
    private = Plugins()
    private.load_entry_points()
    private.load_file(support / "tiny_task.py")
    return private


def names(plugins: Plugins) -> set[str]:
    return {entry.name for entry in plugins.registry().of_kind("task")}


@pytest.mark.parametrize("settings", [(), (TWO,)], ids=["one process", "two processes"])
def test_a_private_set_trains_a_zoo(private: Plugins, support: Path, tmp_path: Path, settings: tuple[str, ...]) -> None:
    overrides = [f"run.dir={tmp_path / 'run'}", "run.device=cpu", *settings]
    result = run(config.load(support / "tiny.toml", private.registry(), overrides), loaded=private)
    assert result.methods["translated"]["n"] == 3
    assert "tiny" not in names(manager.plugins())


def test_an_object_serves_in_this_process_and_is_named_in_others(
    private: Plugins, support: Path, tmp_path: Path
) -> None:
    target = private.registry().find("task", "tiny").component.target

    class Tasks:
        @hookimpl
        def paramtrans_tasks(self) -> list[Component]:
            return [Component("known_here", "the tiny task", target)]

    private.register(Tasks(), Provider("by hand", "1"))
    overrides = [f"run.dir={tmp_path / 'run'}", "run.device=cpu", "task.name=known_here"]
    document = config.load(support / "tiny.toml", private.registry(), overrides)
    assert run(document, loaded=private).methods["translated"]["n"] == 3
    two = config.load(support / "tiny.toml", private.registry(), [*overrides, TWO, "run.dir=" + str(tmp_path / "two")])
    with pytest.raises(UnknownName, match="by hand 1"):
        run(two, loaded=private, fresh=True)


@pytest.mark.slow
def test_a_module_registered_by_hand_reaches_other_processes(
    private: Plugins, support: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "acme_hand.py").write_text((support / "tiny_task.py").read_text().replace('"tiny"', '"tiny_by_hand"'))
    monkeypatch.syspath_prepend(str(tmp_path))
    module = __import__("acme_hand")
    private.register(module, Provider("acme-hand", "2"))
    overrides = [f"run.dir={tmp_path / 'run'}", "run.device=cpu", "task.name=tiny_by_hand", TWO]
    document = config.load(support / "tiny.toml", private.registry(), overrides)
    assert run(document, loaded=private).methods["translated"]["n"] == 3


def test_lifecycle_hooks_are_those_of_the_private_set(private: Plugins, support: Path, tmp_path: Path) -> None:
    files: list[Path] = []

    class Listener:
        @hookimpl
        def paramtrans_run_started(self, run: RunInfo) -> None:
            files.append(run.dir)

    private.register(Listener(), Provider("listener", "1"))
    overrides = [f"run.dir={tmp_path / 'run'}", "run.device=cpu"]
    run(config.load(support / "tiny.toml", private.registry(), overrides), loaded=private)
    assert files == [tmp_path / "run"]


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder with a short name: Ray keeps sockets there."""
    folder = Path(tempfile.mkdtemp(prefix="pt"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow
@pytest.mark.distributed
def test_a_private_set_trains_a_zoo_on_a_ray_cluster(support: Path, short: Path) -> None:
    pytest.importorskip("ray")
    done = subprocess.run(
        [sys.executable, str(support / "private_ray.py"), str(short)],
        env={**os.environ, **RAY, "PARAMTRANS_CACHE": str(short / "cache")},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads((short / "found.json").read_text()) == {"hosts": 3, "globally_known": False}
