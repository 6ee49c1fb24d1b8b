"""The rows of `examples/real/architectures.py`: each by itself, and none twice."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

REAL = Path(__file__).parents[2] / "examples" / "real"


@pytest.fixture
def rows_of(monkeypatch: pytest.MonkeyPatch) -> Any:
    pytest.importorskip("scipy")
    monkeypatch.syspath_prepend(str(REAL))
    import architecture_rows

    yield architecture_rows
    sys.modules.pop("architecture_rows"), sys.modules.pop("measure")


def test_a_row_says_what_it_is_of_and_is_measured_once(rows_of: Any, tmp_path: Path) -> None:
    torch.manual_seed(1)
    network = nn.Sequential(nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 6)), nn.Linear(6, 6)).eval()
    held = torch.randn(8, 3, 6)
    expected = network(held).detach()
    subject = rows_of.Subject(
        "tiny",
        "Sequential",
        "distance",
        [network],
        {"thin": {"0": "linear_chain?hidden=[4]"}, "whole": {"0": "linear_chain"}},
        (16,),
        lambda count, number: torch.randn(count, 3, 6, generator=torch.Generator().manual_seed(number)),
        lambda other: (other(held) - expected).detach().square().mean((1, 2)).tolist(),
        held,
    )
    output = tmp_path / "rows.json"
    [whole] = rows_of.rows(subject, rows_of.Wanted(["whole"], ["start"]), output)
    assert whole.value < 1e-10 < whole.random and whole.parameters == (110, 110) and whole.flops == 1
    [thin] = rows_of.rows(subject, rows_of.Wanted(None, ["start"]), output)
    assert (thin.target, thin.source, thin.inputs, thin.stage, thin.blocks) == ("thin", "Sequential", 16, "start", 1)
    assert whole.value < thin.value < thin.random and thin.flops < 1 and thin.errors == [thin.error]
    written = json.loads(output.read_text())
    assert [(row["to"], row["from"]) for row in written] == [("whole", "Sequential"), ("thin", "Sequential")]
    assert list(rows_of.rows(subject, rows_of.Wanted(None, ["start"]), output)) == []
    assert json.loads(output.read_text()) == written
