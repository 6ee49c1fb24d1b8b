"""Kill at any moment: the resumed run ends with the bits of the undisturbed one, and does little twice."""

from __future__ import annotations

import json
import shutil
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

from trust.checks import Count, Setting
from trust.runs import Ended, Shell, leftovers, numbers, parameters, undisturbed

STAGES = ("zoo_step1", "zoo_step2", "training", "evaluation", "report")
NAP = 0.02
"""Seconds that every batch takes longer, so that no stage is over before it can be hit."""


def killed_at_any_moment(setting: Setting, count: Count) -> None:
    """SIGKILL or SIGINT at random moments of every stage; then the same command again."""
    whole, expected = undisturbed(setting.folder.parent / "undisturbed")
    slow = Shell(setting.folder / "slow")
    slow.start(slow.arguments(), NAP).wait()
    seconds = slow.record()["seconds"]
    random, hit = setting.random, Counter[str]()
    for trial in range(setting.trials):
        shell = Shell(setting.folder / f"trial-{trial}")
        stage, number = STAGES[trial % len(STAGES)], random.choice([signal.SIGKILL, signal.SIGINT])
        process = shell.start(shell.arguments(), NAP)
        _wait_for(shell, stage)
        time.sleep(random.uniform(0, seconds[stage] * 1.1))
        at = _stage(shell)
        process.kill(number)
        stopped = process.wait()
        hit[at] += 1
        count.add(f"trial {trial}, {number.name} in {at}", _problems(shell, whole, expected, stopped, number))
        shutil.rmtree(shell.path)
    count.notes.append("killed in " + ", ".join(f"{stage} {hit[stage]}" for stage in sorted(hit)))


def _wait_for(shell: Shell, stage: str) -> None:
    """Until all stages before `stage` are done; the first begins when the run's folder is there."""
    before = STAGES[: STAGES.index(stage)]
    until = time.monotonic() + 300
    while not ((record := shell.record()) and set(before) <= record["seconds"].keys()) and time.monotonic() < until:
        time.sleep(0.002)


def _stage(shell: Shell) -> str:
    """The stage that a run is in: the first whose time is not noted yet."""
    record = shell.record()
    if record.get("status") == "finished":
        return "finished"
    done = record.get("seconds", {})
    return next((stage for stage in STAGES if stage not in done), "end") if record else "start"


def _problems(
    shell: Shell, whole: Shell, expected: dict[str, Any], stopped: Ended, number: signal.Signals
) -> list[str]:
    problems = []
    wanted = (0, -9) if number is signal.SIGKILL else (0, 130)
    if stopped.status not in wanted or "Traceback" in stopped.err:
        problems.append(f"stopped with {stopped.status}: {stopped.err[-300:]!r}")
    if number is signal.SIGINT and (left := leftovers(shell.path)):
        problems.append(f"left {left}")
    kept = whole_shards(shell.zoos)
    ended = shell.do()
    if ended.status != 0:
        return [*problems, f"resumed with {ended.status}: {ended.err[-300:]!r}"]
    if numbers(json.loads(ended.out)) != numbers(expected):
        problems.append("other methods")
    for folder, other in ((shell.zoos, whole.zoos), (shell.run, whole.run)):
        if parameters(folder) != parameters(other):
            problems.append(f"other parameters below {folder.name}")
    after = whole_shards(shell.zoos)
    if again := [name for name, identity in kept.items() if after.get(name) != identity]:
        problems.append(f"trained again: {again}")
    epochs = Counter((shell.path / "epochs.txt").read_text().split())
    if set(epochs) != {"1", "2", "3", "4"} or sum(epochs.values()) > 5:
        problems.append(f"epochs trained: {dict(epochs)}")
    if left := leftovers(shell.path):
        problems.append(f"left {left}")
    return problems


def whole_shards(cache: Path) -> dict[str, tuple[int, int]]:
    """Which file each finished shard is: a file written again is another one."""
    shards = [path for path in cache.rglob("*.safetensors") if path.with_name(path.name + ".json").exists()]
    return {str(path): (path.stat().st_ino, path.stat().st_mtime_ns) for path in shards}
