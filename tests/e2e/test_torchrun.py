"""Two processes started by torchrun train one translator: the losses of one process, one run folder, one answer."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch.distributed

SUPPORT = Path(__file__).parents[1] / "support"
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
# 50 steps, of five hosts and of one alone: shares of two and three hosts, of one and none.
SETTINGS = ("training.epochs=25", "training.batch_size=5", "translator.dropout=0", "augmenters=[]")

pytestmark = [
    pytest.mark.distributed,
    pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no torch.distributed"),
]


@dataclass(frozen=True)
class Place:
    """A folder with a cache, in which the tiny config is run."""

    path: Path

    def start(self, run: str, *launcher: str, **env: str) -> subprocess.Popen[str]:
        command = ["run", str(SUPPORT / "tiny.toml"), "--plugin", str(SUPPORT / "tiny_task.py"), "--json"]
        for setting in (*SETTINGS, "run.device=cpu", f"run.dir={self.path / run}"):
            command += ["--set", setting]
        return subprocess.Popen(
            [sys.executable, *launcher, "-m", "paramtrans.cli.main", *command],
            env={**os.environ, "PARAMTRANS_CACHE": str(self.path / "cache"), "OMP_NUM_THREADS": "1", **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def losses(self, run: str) -> list[float]:
        return [json.loads(line)["loss"] for line in (self.path / run / "metrics.jsonl").read_text().splitlines()]


def answer(process: subprocess.Popen[str]) -> tuple[dict[str, Any], str]:
    """The one JSON object on standard output, and standard error."""
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    document: dict[str, Any] = json.loads(out)
    return document, err


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """With a run of two processes, interrupted once by Ctrl-C, and the same run of one process."""
    place = Place(tmp_path_factory.mktemp("torchrun"))
    _interrupt(place)
    _, messages = answer(place.start("two", *TORCHRUN))
    assert "step 1" not in messages and messages.count("step 3: translator: done") == 1
    answer(place.start("one"))
    return place


def _interrupt(place: Place) -> None:
    """Send SIGINT when there is a point to go on from; both processes end."""
    process = place.start("two", *TORCHRUN, TINY_NAP="0.03")
    deadline = time.monotonic() + 200
    while not list((place.path / "two" / "checkpoint").glob("epoch-*.json")) and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    workers = _children(process.pid)
    assert len(workers) == 2
    process.send_signal(signal.SIGINT)
    _, messages = process.communicate(timeout=100)
    assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()]
    assert messages.count("step 1: 11 whole hosts: done") == 1  # by one of them
    assert json.loads((place.path / "two" / "run.json").read_text())["status"] == "running"


def test_two_processes_follow_the_losses_of_one(place: Place) -> None:
    alone, shared = place.losses("one"), place.losses("two")
    assert len(alone) == len(shared) == 25
    assert shared == pytest.approx(alone, rel=1e-4)


def test_each_process_did_its_share(place: Place) -> None:
    """Sums of shares are rounded otherwise than a whole batch."""
    weights = [place.path / run / "translator" / "translator.safetensors" for run in ("one", "two")]
    assert weights[0].read_bytes() != weights[1].read_bytes()


def _children(pid: int) -> list[int]:
    """The Python processes that a process started."""
    listed = subprocess.run(["ps", "-o", "pid=,args=", "--ppid", str(pid)], capture_output=True, text=True, check=True)
    return [int(line.split()[0]) for line in listed.stdout.splitlines() if "paramtrans.cli.main" in line]
