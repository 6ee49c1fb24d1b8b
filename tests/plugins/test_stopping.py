"""Plugins are told how the training of a zoo goes, and may stop a run, which then goes on from there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from paramtrans import Config, StopRun, run
from paramtrans.api.job import Job
from paramtrans.cli.main import main
from paramtrans.plugins import Plugins, hookimpl
from paramtrans.plugins.registry import Provider

Make = Callable[..., Config]


class Listener:
    """Remembers what it is told; stops the run where it is asked to."""

    def __init__(self, stop_at: str = "") -> None:
        self.events: list[Any] = []
        self.stop_at = stop_at

    def note(self, event: str, *what: Any) -> None:
        self.events.append((event, *what))
        if event == self.stop_at:
            raise StopRun("the night is over")

    @hookimpl
    def paramtrans_run_started(self) -> None:
        self.note("run_started")

    @hookimpl
    def paramtrans_zoo_started(self, step: int, shards: int) -> None:
        self.note("zoo_started", step, shards)

    @hookimpl
    def paramtrans_shard_finished(self, job: Job, left: int) -> None:
        assert job.file.exists()
        self.note("shard_finished", job.step, left)

    @hookimpl
    def paramtrans_zoo_finished(self, step: int) -> None:
        self.note("zoo_finished", step)

    @hookimpl
    def paramtrans_epoch_ended(self, epoch: int) -> None:
        self.note("epoch_ended", epoch)

    @hookimpl
    def paramtrans_run_finished(self) -> None:
        self.note("run_finished")


def listening(plugins: Plugins, stop_at: str = "") -> Listener:
    listener = Listener(stop_at)
    plugins.register(listener, Provider("listener", "1"))
    return listener


def test_zoos_are_told_of_shard_by_shard(tiny_plugins: Plugins, tiny_config: Make) -> None:
    listener = listening(tiny_plugins)
    run(tiny_config("training.epochs=1"), loaded=tiny_plugins)
    events = [("zoo_started", 1, 4), *(("shard_finished", 1, left) for left in (3, 2, 1, 0)), ("zoo_finished", 1)]
    two = [("zoo_started", 2, 3), *(("shard_finished", 2, left) for left in (2, 1, 0)), ("zoo_finished", 2)]
    assert listener.events == [("run_started",), *events, *two, ("epoch_ended", 1), ("run_finished",)]


@pytest.mark.parametrize(
    "event",
    [
        "shard_finished",
        "epoch_ended",
        *(pytest.param(event, marks=pytest.mark.slow) for event in ("run_started", "zoo_started", "run_finished")),
    ],
)
def test_a_run_that_was_stopped_goes_on(tiny_plugins: Plugins, tiny_config: Make, tmp_path: Path, event: str) -> None:
    listener = listening(tiny_plugins, event)
    settings = ("training.epochs=3", "training.checkpoint_every=3")
    with pytest.raises(StopRun, match="the night is over"):
        run(tiny_config(*settings), loaded=tiny_plugins)
    listener.stop_at, listener.events = "", []
    result = run(tiny_config(*settings), loaded=tiny_plugins)
    if event == "epoch_ended":  # what was learned is kept, checkpoint or not
        assert [what for what in listener.events if what[0] == event] == [(event, 2), (event, 3)]
    if event == "shard_finished":
        assert ("zoo_started", 1, 4) not in listener.events
    whole = run(tiny_config(*settings, dir=tmp_path / "whole"), loaded=tiny_plugins)
    assert result.methods == whole.methods


def test_the_command_says_why_it_stopped_and_ends_with_status_three(
    tiny_plugins: Plugins, support: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listening(tiny_plugins, "zoo_finished")
    arguments = ["run", str(support / "tiny.toml"), "--quiet", "--set", f"run.dir={tmp_path / 'run'}"]
    assert main([*arguments, "--set", "run.device=cpu"]) == 3
    error = capsys.readouterr().err
    assert "stopped: the night is over; run the same command again to go on" in error and "Traceback" not in error
