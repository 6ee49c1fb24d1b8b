"""`paramtrans translate` on a small network of one's own: its answer, its files, what is refused at once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import paramtrans
from paramtrans.cli.main import main
from paramtrans.errors import SpecMismatch
from paramtrans.networks.results import exporting

NETS = """
from torch import nn

def small():
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
"""


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    """MODEL, its architecture, inputs, and where the result goes."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    (tmp_path / "nets.py").write_text(NETS)
    save_file(network.state_dict(), tmp_path / "given.safetensors")
    save_file({"x": torch.randn(40, 6)}, tmp_path / "x.safetensors")
    return [
        "translate", f"{tmp_path}/given.safetensors", "--arch", f"{tmp_path}/nets.py:small",
        "--calibrate", f"{tmp_path}/x.safetensors", "--quiet", "-o", f"{tmp_path}/small.safetensors",
    ]  # fmt: skip


def test_forms_that_cannot_be_had_cost_neither_the_answer_nor_other_forms(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> bytes:
        raise SpecMismatch("no such form")

    monkeypatch.setattr(exporting, "onnx_bytes", fail)
    monkeypatch.setattr(exporting, "exported_bytes", lambda *_: b"a program")
    page, program, onnx = (tmp_path / name for name in ("small.html", "small.pt2", "small.onnx"))
    forms = ["--onnx", str(onnx), "--report", str(page), "--export", str(program)]
    assert main([*command, *forms, "--json"]) == 2
    answer = capsys.readouterr()
    assert json.loads(answer.out)["blocks"] and "no such form" in answer.err
    assert f"{page}, {program} are written; not written: {onnx}" in answer.err
    assert page.is_file() and program.is_file() and not onnx.exists()
    monkeypatch.setattr(exporting, "exported_bytes", fail)
    assert main([*command, *forms]) == 2
    answer = capsys.readouterr()
    assert "feature error" in answer.out and f"{onnx}: no such form\n{program}: no such form" in answer.err
    assert paramtrans.load_translated(tmp_path / "small.safetensors", f"{tmp_path}/nets.py:small")(
        torch.ones(1, 6)
    ).any()
