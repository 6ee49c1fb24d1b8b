"""Workers that are lost: the run says so, nothing is half done, and it goes on with any number of others."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

from trust.checks import Count, Setting
from trust.kill import whole_shards
from trust.runs import Ended, Process, Shell, _main, leftovers, numbers, parameters, undisturbed

NAP = 0.05
"""Seconds that every batch takes longer, so that a worker can be hit while it trains."""
PATIENCE = 20.0
"""Seconds in which the workers of a run that has ended must be gone."""


def lost_workers(setting: Setting, count: Count) -> None:
    """SIGKILL to a worker of the `local` executor, or to the run that it works for; then on with other workers."""
    whole, expected = undisturbed(setting.folder.parent / "undisturbed")
    random = setting.random
    for trial in range(setting.trials):
        shell = Shell(setting.folder / f"trial-{trial}")
        first, then, kills_run = 2 + trial % 2, 1 + trial % 3, trial % 3 == 2
        process = _start(shell, first, NAP)
        victim = random.choice(_workers(process, first) or [process.pid])
        others = [pid for pid in _workers(process, first) if pid != victim]
        time.sleep(random.uniform(0, 2))
        kept = whole_shards(shell.zoos)
        os.kill(process.pid if kills_run else victim, signal.SIGKILL)
        problems = _stopped(process.wait(), kills_run)
        problems += [f"worker {pid} is still there" for pid in others if not _gone(pid)]
        problems += [f"left {left}" for left in [leftovers(shell.path)] if left and not kills_run]
        problems += _resumed(_start(shell, then, 0).wait(), shell, whole, expected, kept)
        count.add(f"{first} workers, then {then}{', the run itself killed' if kills_run else ''}", problems)
        shutil.rmtree(shell.path)


def _start(shell: Shell, workers: int, nap: float) -> Process:
    executor = f"executor={{name='local', processes={workers}}}"
    environment = shell.environment | {"TINY_NAP": str(nap)}  # workers are no forks, so they read it
    return Process(shell.path / "output", lambda: _main(shell.arguments("--set", executor), 0), environment)


def _stopped(ended: Ended, kills_run: bool) -> list[str]:
    if kills_run:
        return [] if ended.status == -signal.SIGKILL else [f"ended with {ended.status}"]
    if ended.status == 0:  # the worker had nothing left to do
        return []
    return ended.refused() + ([] if "a process was killed" in ended.err else [ended.err[-300:]])


def _resumed(
    ended: Ended, shell: Shell, whole: Shell, expected: dict[str, Any], kept: dict[str, tuple[int, int]]
) -> list[str]:
    if ended.status != 0:
        return [f"resumed with {ended.status}: {ended.err[-300:]!r}"]
    problems = [] if numbers(json.loads(ended.out)) == numbers(expected) else ["other methods"]
    problems += [] if parameters(shell.zoos) == parameters(whole.zoos) else ["another zoo"]
    after = whole_shards(shell.zoos)
    problems += [f"trained again: {name}" for name, identity in kept.items() if after.get(name) != identity]
    return problems + [f"left {left}" for left in [leftovers(shell.path)] if left]


def _workers(process: Process, count: int) -> list[int]:
    """The processes that a run has started to train in, once they are there."""
    until = time.monotonic() + 60
    while time.monotonic() < until and process.poll() is None:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        workers = [int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        if len(workers) >= count:
            return workers
        time.sleep(0.01)
    return []


def _gone(pid: int) -> bool:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.05)
    os.kill(pid, signal.SIGKILL)
    return False
