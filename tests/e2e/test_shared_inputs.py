"""Two processes started by torchrun share calibration inputs: the smaller network of one process, written once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import paramtrans
from paramtrans import SpecMismatch
from paramtrans.networks.forward.examples import Examples
from paramtrans.utils.distributed import ProcessGroup
from tests.support import shared_inputs

SCRIPT = Path(shared_inputs.__file__)
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
NEAR = 1e-6
"""Sums of products are rounded to single precision in other pieces."""

pytestmark = [
    pytest.mark.distributed,
    pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no torch.distributed"),
]


def run_by_two(*command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    process = subprocess.run(
        [sys.executable, *TORCHRUN, *command],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == 0, process.stderr
    return process


def test_two_processes_find_what_one_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_inputs.widths, "latency", shared_inputs.widths.latency)  # the cases replace it
    run_by_two(str(SCRIPT), str(tmp_path / "two.safetensors"), cwd=SCRIPT.parents[2])
    shared = load_file(tmp_path / "two.safetensors")
    for case in shared_inputs.CASES:
        alone = shared_inputs.translated(case)
        for name, tensor in alone.items():
            other = shared[f"{case}.{name}"]
            assert other.shape == tensor.shape, name  # the same units stay
            if name in ("errors", "outputs"):
                assert float((other - tensor).abs().max() / tensor.abs().max()) < NEAR, (case, name)


def _write_network(folder: Path) -> nn.Module:
    """A network with its code, its parameters and 80 inputs in a folder."""
    torch.manual_seed(0)
    (folder / "network.py").write_text(NETWORK)
    network = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    save_file(network.state_dict(), folder / "model.safetensors")
    np.save(folder / "inputs.npy", torch.randn(80, 6, generator=torch.Generator().manual_seed(1)).numpy())
    return network


def test_the_command_prints_and_writes_once(tmp_path: Path) -> None:
    network = _write_network(tmp_path)
    command = ["translate", "model.safetensors", "--arch", "network.py:make", "--calibrate", "inputs.npy", "--json"]
    process = run_by_two("-m", "paramtrans.cli.main", *command, "-o", "small.safetensors", cwd=tmp_path)
    answer = json.loads(process.stdout)  # one object, of one process
    assert process.stderr.count("translating 1 group of units") == 2  # begun, and done
    alone = paramtrans.translate(network, calibrate=torch.from_numpy(np.load(tmp_path / "inputs.npy")).split(32))
    [block] = answer["blocks"]
    assert block["feature_error"] == pytest.approx(alone.paramtrans_blocks[0].feature_error, rel=1e-5)
    assert (tmp_path / "small.safetensors").exists()


def test_processes_share_the_widths_that_are_explored(tmp_path: Path) -> None:
    _write_network(tmp_path)
    command = ["explore", "model.safetensors", "--arch", "network.py:make", "--calibrate", "inputs.npy", "--json"]
    command += ["--ratios", "0.75,0.5,0.25"]
    shared = json.loads(
        run_by_two("-m", "paramtrans.cli.main", *command, "--ratios", "0.75,0.5,0.25", cwd=tmp_path).stdout
    )
    alone = subprocess.run(
        [sys.executable, "-m", "paramtrans.cli.main", *command],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    expected = json.loads(alone.stdout)
    assert [point["ratio"] for point in shared["points"]] == [0.75, 0.5, 0.25]
    assert [point["loss"] for point in shared["points"]] == pytest.approx([p["loss"] for p in expected["points"]])
    assert shared["knee"] == expected["knee"]


NETWORK = """
from torch import nn

def make():
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
"""


def test_fewer_batches_than_processes_are_refused_in_words() -> None:
    with pytest.raises(SpecMismatch, match="2 processes share 1 batch; give more inputs"):
        _ = Examples([torch.zeros(40, 3)], ProcessGroup(1, 2)).passed_here
