"""A real Ray cluster of several nodes on this machine: a zoo finishes, bit for bit the local one, when one is lost."""

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
import torch

from paramtrans.builder import Builder
from paramtrans.config import Config
from paramtrans.plugins import components
from paramtrans.zoo import ROLES, Zoo

Make = Callable[..., Config]
SUPPORT = Path(__file__).parents[1] / "support"
RAY = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}

pytest.importorskip("ray")
pytestmark = pytest.mark.distributed


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder with a short name: Ray keeps sockets there."""
    folder = Path(tempfile.mkdtemp(prefix="pt"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def test_a_zoo_finishes_bit_for_bit_while_a_node_is_killed_under_it(tiny_config: Make, short: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(SUPPORT / "lost_node.py"), str(short)],
        env={**os.environ, **RAY, "TINY_NAP": "0.2"},  # a shard takes seconds, and the node is killed within one
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads((short / "found.json").read_text())
    assert report["jobs_1"] == 4 and report["jobs_2"] == 3 and report["missing"] == 0
    assert report["shards_when_killed"] < report["jobs_1"]
    assert report["nodes"] == {"begun": 2, "alive": 2}  # both that may train began; the head and one of them are left

    config = tiny_config()
    builder = Builder(config, components())
    local, spread = Zoo(builder, short / "local"), Zoo(builder, short / "cache")
    for step in (1, 2):
        builder.executor.run(local.missing(step), lambda steps: None)
    for role in ROLES:
        mine, others = local.load(role).parts(), spread.load(role).parts()
        assert mine.keys() == others.keys()
        assert all(torch.equal(t, others[part][name]) for part in mine for name, t in mine[part].items())
