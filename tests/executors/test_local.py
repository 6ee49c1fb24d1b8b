"""Several processes train the very zoo that one does, report all steps, and pass on what goes wrong."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from paramtrans_executors import local
from paramtrans_executors.local import _shares

from paramtrans.api.job import Job
from paramtrans.api.stacking import Params
from paramtrans.builder import Builder
from paramtrans.config import Config
from paramtrans.errors import ParamtransError, TrainingError
from paramtrans.plugins import components
from paramtrans.storage.shards import Shards
from paramtrans.zoo import Zoo

Make = Callable[..., Config]
TWO = 'executor={ name = "local", processes = 2 }'


def train(config: Config, cache: Path) -> tuple[Zoo, int]:
    builder, done = Builder(config, components()), []
    zoo = Zoo(builder, cache)
    for step in (1, 2):
        builder.executor.run(zoo.missing(step), done.append)
        assert zoo.missing(step) == []
    return zoo, sum(done)


def test_two_processes_train_the_same_zoo_bit_for_bit(tiny_config: Make, tmp_path: Path) -> None:
    alone, steps = train(tiny_config(), tmp_path / "one")
    two, other_steps = train(tiny_config(TWO), tmp_path / "two")
    assert steps == other_steps
    for role in ("train", "select", "report"):
        mine, others = alone.load(role).parts(), two.load(role).parts()
        assert mine.keys() == others.keys()
        assert all(torch.equal(t, others[part][name]) for part in mine for name, t in mine[part].items())


@pytest.mark.slow
def test_two_processes_write_a_zoo_that_two_others_read(
    tiny_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TINY_NAP", "0.02")  # so that shards come one after the other
    builder = Builder(tiny_config(TWO, "zoo.train=16", "zoo.pairs=0", "zoo.shard=2"), components())
    zoo = Zoo(builder, tmp_path)
    jobs = zoo.missing(1)
    writers = threading.Thread(target=builder.executor.run, args=(jobs, lambda steps: None))
    writers.start()
    readers = [Reader(zoo), Reader(zoo)]
    while writers.is_alive():
        for reader in readers:
            reader.look()
    assert all(0 < reader.first < len(jobs) for reader in readers)
    for reader in readers:
        reader.look()
        assert len(reader.seen) == len(jobs)
    assert len(zoo.load("train")) == 16


class Reader:
    """Maps the shards that are there, whole each time, and never finds one changed."""

    def __init__(self, zoo: Zoo) -> None:
        self.folder = zoo.dir / "hosts"
        self.seen: dict[str, Params] = {}
        self.first = 0
        """Shards that were there when any were."""

    def look(self) -> None:
        for record in self.folder.glob("*.safetensors.json"):
            shards = Shards([record.with_suffix("")])
            shards.check()
            taken = shards.take(range(len(shards)))
            before = self.seen.setdefault(record.name, taken)
            assert all(torch.equal(tensor, before[name]) for name, tensor in taken.items())
        self.first = self.first or len(self.seen)


def _jobs(config: Config, cache: Path) -> list[Job]:
    return Zoo(Builder(config, components()), cache).missing(1)


def _with_plugin(jobs: list[Job], file: str) -> list[Job]:
    """Jobs that ask for one more one-file plugin."""
    return [
        job.model_copy(update={"plugins": replace(job.plugins, key="", files=(*job.plugins.files, file))})
        for job in jobs
    ]


def test_an_error_in_a_process_is_the_run_s_error(tiny_config: Make, tmp_path: Path) -> None:
    config = tiny_config(TWO)
    jobs = _with_plugin(_jobs(config, tmp_path), "/nowhere/plugin.py")
    with pytest.raises(ParamtransError, match="no such Python file"):
        Builder(config, components()).executor.run(jobs, lambda steps: None)


def test_a_process_that_is_killed_is_named(tiny_config: Make, tmp_path: Path) -> None:
    deadly = tmp_path / "deadly.py"
    deadly.write_text("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    config = tiny_config(TWO)
    jobs = _with_plugin(_jobs(config, tmp_path), str(deadly))
    with pytest.raises(TrainingError, match="process was killed"):
        Builder(config, components()).executor.run(jobs, lambda steps: None)


def test_without_shared_memory_one_process_is_advised(
    tiny_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Without:
        def SimpleQueue(self) -> None:  # noqa: N802 - as multiprocessing has it
            raise OSError(38, "Function not implemented")

    monkeypatch.setattr(multiprocessing, "get_context", lambda method: Without())
    config = tiny_config(TWO)
    with pytest.raises(TrainingError, match=r"is there a /dev/shm\?\); set executor.processes to 1"):
        Builder(config, components()).executor.run(_jobs(config, tmp_path), lambda steps: None)


def test_processes_that_cannot_begin_are_no_want_of_memory(
    tiny_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a script starts a run at its top level, so that each process that imports it fails."""
    monkeypatch.setattr(local, "_begin", sys.exit)
    config = tiny_config(TWO)
    with pytest.raises(TrainingError, match=r'could not begin; .*if __name__ == "__main__"'):
        Builder(config, components()).executor.run(_jobs(config, tmp_path), lambda steps: None)


STARTS_ONE = """
import multiprocessing, os, time
from concurrent.futures import ProcessPoolExecutor
from paramtrans_executors.local import _begin

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    shares = context.SimpleQueue()
    shares.put([])
    pool = ProcessPoolExecutor(1, context, _begin, (shares, context.Queue(), context.Event()))
    print(pool.submit(os.getpid).result(), flush=True)
    time.sleep(120)
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="this system does not say which processes there are")
def test_processes_end_with_the_one_that_started_them(tmp_path: Path) -> None:
    (tmp_path / "starts.py").write_text(STARTS_ONE)
    starter = subprocess.Popen([sys.executable, str(tmp_path / "starts.py")], stdout=subprocess.PIPE, text=True)
    assert starter.stdout is not None
    worker = int(starter.stdout.readline())
    assert _runs(worker)
    starter.kill()
    starter.wait()
    until = time.monotonic() + 30
    while _runs(worker) and time.monotonic() < until:
        time.sleep(0.05)
    assert not _runs(worker)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system does not say which cores there are")
@pytest.mark.parametrize("processes", [1, 2, 3, 7])
def test_every_core_is_shared_out_and_every_process_has_one(processes: int) -> None:
    shares = _shares(processes)
    assert len(shares) == processes and all(shares)
    assert {core for share in shares for core in share} == os.sched_getaffinity(0)
