"""A full disk, a folder that may not be written, too little memory, and two processes in one place."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trust.checks import Count, Setting
from trust.runs import Process, Shell, _main, leftovers, limited, numbers, parameters, undisturbed


def full_disks(setting: Setting, count: Count) -> None:
    """The disk is full at a random moment; with room again, the same command ends with the undisturbed numbers."""
    whole, expected = undisturbed(setting.folder.parent / "undisturbed")
    needed = sum(p.stat().st_size for p in whole.path.rglob("*") if p.is_file()) // 1024
    mounted = _can_mount(setting.folder / "mount")
    if not mounted:
        count.notes.append("no file system could be mounted: the size of a file was limited instead")
    random = setting.random
    for trial in range(setting.trials):
        shell = Shell(setting.folder / f"trial-{trial}")
        kilobytes = random.randrange(8, max(9, needed * 3 // 4))
        if mounted:
            shell.path.mkdir()
            _mount(shell.path, f"size={kilobytes}k")
            ended = _outside(setting.folder, shell, lambda s=shell: _main(s.arguments(), 0))
        else:
            ended = _outside(setting.folder, shell, _small_files(shell, random.randrange(1, 24)))
        problems = ended.refused()
        problems += [] if "cannot be written" in ended.err or "No space" in ended.err else [ended.err[-300:]]
        problems += [f"left {left}" for left in [leftovers(shell.path)] if left]
        if mounted:
            _mount(shell.path, "remount,size=1g")
        problems += _goes_on(
            _outside(setting.folder, shell, lambda s=shell: _main(s.arguments(), 0)), shell, whole, expected
        )
        count.add(f"{kilobytes} KiB", problems)
        if mounted:
            subprocess.run(["umount", str(shell.path)], check=True)
        shutil.rmtree(shell.path)


def places_that_may_not_be_written(setting: Setting, count: Count) -> None:
    """The run's folder, its parent, the cache, and folders in them are read-only."""
    whole, expected = undisturbed(setting.folder.parent / "undisturbed")
    names = ("run", "", "cache", "cache/zoos", "run/translator")
    for trial in range(setting.trials):
        shell = Shell(setting.folder / f"trial-{trial}")
        name = names[trial % len(names)]
        shell.path.mkdir()
        if name == "run/translator":  # of a run that was stopped before its evaluation
            shutil.copytree(whole.run, shell.run)
            (shell.run / "run.json").write_bytes(_running(whole))
            shutil.copytree(whole.zoos, shell.zoos)
        place = shell.path / name
        place.mkdir(exist_ok=True, parents=True)
        before = place.stat().st_mode
        everyone = [shell.path, *(p for p in shell.path.rglob("*"))]
        for path in everyone:
            path.chmod(0o777 if path.is_dir() else 0o666)
        place.chmod(0o555)
        ended = _outside(setting.folder, shell, _as_nobody(lambda s=shell: _main(s.arguments(), 0)))
        problems = ended.refused()
        problems += [] if "cannot be" in ended.err else [ended.err[-300:]]
        place.chmod(before)
        problems += _goes_on(
            _outside(setting.folder, shell, lambda s=shell: _main(s.arguments(), 0)), shell, whole, expected
        )
        count.add(name or "all", problems)
        shutil.rmtree(shell.path)


def too_little_memory(setting: Setting, count: Count) -> None:
    """A run is allowed a little more memory than it begins with, and needs more."""
    undisturbed(setting.folder.parent / "undisturbed")  # so that forks need not import
    for trial in range(setting.trials):
        shell = Shell(setting.folder / f"trial-{trial}")
        large = ["zoo.shard=2048", "zoo.train=2048", "zoo.step1={steps=2, batch_size=96}"]
        settings = [word for text in large for word in ("--set", text)]
        megabytes = 40 + 40 * trial % 400
        do = limited(lambda s=shell, a=settings: _main(s.arguments(*a), 0), megabytes)
        ended = _outside(setting.folder, shell, do)
        problems = ended.refused() + ([] if "memory" in ended.err else [ended.err[-300:]])
        count.add(f"{megabytes} MB", [*problems, *(f"left {left}" for left in leftovers(shell.path))])
        shutil.rmtree(shell.path, ignore_errors=True)  # refused at once, it has made no folder


def two_processes(setting: Setting, count: Count) -> None:
    """In one run folder the second is refused; on one zoo both end with the undisturbed numbers, --fresh or not."""
    _, expected = undisturbed(setting.folder.parent / "undisturbed")
    for trial in range(setting.trials):
        shell = Shell(setting.folder / f"trial-{trial}")
        fresh = ["--fresh"] * (trial % 2)
        first = shell.start(shell.arguments(), nap=0.02)
        while not (shell.run / "run.json").exists() and first.poll() is None:
            time.sleep(0.002)
        same = shell.do()
        problems = same.refused() + ([] if "another process" in same.err else [same.err[-300:]])
        if fresh:
            while "zoo_step2" not in shell.record().get("seconds", {}) and first.poll() is None:
                time.sleep(0.002)
        others = [shell.start(shell.arguments(*fresh, run=f"other-{i}")) for i in range(2)]
        for ended in [first.wait(), *(process.wait() for process in others)]:
            if ended.status != 0 or numbers(json.loads(ended.out)) != numbers(expected):
                problems.append(f"ended with {ended.status}: {ended.err[-300:]}")
        count.add(f"{'three beside --fresh' if fresh else 'three'}", problems)
        shutil.rmtree(shell.path)


def _outside(folder: Path, shell: Shell, do: Callable[[], object]) -> Any:
    """Run with the output elsewhere than on the disk that is full."""
    return Process(folder / "output", do, shell.environment | {"TRUST_EPOCHS": os.devnull}).wait()


def _goes_on(ended: Any, shell: Shell, whole: Shell, expected: dict[str, Any]) -> list[str]:
    if ended.status != 0:
        return [f"went on with {ended.status}: {ended.err[-300:]}"]
    problems = [] if numbers(json.loads(ended.out)) == numbers(expected) else ["other methods"]
    return problems + ([] if parameters(shell.zoos) == parameters(whole.zoos) else ["another zoo"])


def _running(whole: Shell) -> bytes:
    from paramtrans.storage import json_files

    record = whole.record()
    del record[json_files.SEAL]
    path = whole.path / "running.json"
    json_files.write_sealed(path, {**record, "status": "running", "files": {}})
    return path.read_bytes()


def _as_nobody(do: Callable[[], object]) -> Callable[[], object]:
    """Root may write anywhere, so it becomes someone else."""

    def run() -> object:
        if os.getuid() == 0:
            os.setgid(65534)
            os.setuid(65534)
        return do()

    return run


def _small_files(shell: Shell, kilobytes: int) -> Callable[[], object]:
    def run() -> object:
        resource.setrlimit(resource.RLIMIT_FSIZE, (kilobytes * 1024, kilobytes * 1024))
        return _main(shell.arguments(), 0)

    return run


def _can_mount(folder: Path) -> bool:
    if os.getuid() != 0 or not shutil.which("mount"):
        return False
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True).returncode:
        return False
    subprocess.run(["umount", str(folder)], check=True)
    return True


def _mount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True, capture_output=True)
