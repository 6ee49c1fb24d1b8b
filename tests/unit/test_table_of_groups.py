"""What is said of groups that were made smaller: each tensor in one row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

import paramtrans
from paramtrans.cli.inspect_units import describe_groups
from paramtrans.cli.main import main
from paramtrans.errors import SpecMismatch
from paramtrans.evaluation.costs import parameters
from paramtrans.networks.graph.inventory import QUERY_KEY, STREAM, UNUSED
from tests.support.attending import Attention


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.attention, self.norm = nn.Linear(4, 12), Attention(12, 2), nn.LayerNorm(12)
        self.up, self.down, self.head = nn.Linear(12, 20), nn.Linear(20, 12), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        x = x + self.attention(x)
        return self.head(x + self.down(F.relu(self.up(self.norm(x)))))


def chain() -> nn.Module:
    """Each layer writes one group and reads another, one the other way round."""
    layers = (nn.Conv1d(5, 8, 1), nn.ReLU(), nn.Conv1d(8, 6, 1), nn.ReLU(), nn.ConvTranspose1d(6, 10, 1), nn.ReLU())
    return nn.Sequential(*layers, nn.Conv1d(10, 2, 1))


@pytest.mark.parametrize(
    ("network", "shape", "asked", "count"),
    [
        (chain, (40, 5, 4), {"ratio": 0.5}, 3),
        (Transformer, (40, 5, 4), {"ratio": 0.5, "query_key": 0.5}, 3),
        (Transformer, (40, 5, 4), {"ratio": 0.5, "query_key": 0.5, "stream": 0.5}, 4),
    ],
)
def test_rows_add_up_to_what_the_network_lost(
    network: Any, shape: tuple[int, ...], asked: dict[str, float], count: int
) -> None:
    torch.manual_seed(0)
    whole = network().eval()
    small = paramtrans.translate(whole, calibrate=torch.randn(shape), **asked)
    rows = small.paramtrans_blocks
    assert len(rows) == count
    assert sum(row.parameters[0] - row.parameters[1] for row in rows) == parameters(whole) - parameters(small)


@pytest.mark.thorough
def test_groups_on_request_are_listed_and_called_what_they_are() -> None:
    torch.manual_seed(0)
    document = describe_groups(Transformer().eval(), "*", [torch.randn(4, 5, 4)])
    rows = {row["title"]: row for row in document["blocks"]}
    stream = rows["stream of 9 layers (embed … head)"]
    assert (stream["adapter"], stream["path"], stream["hidden"], stream["refused"]) == ("stream", "embed", [12], STREAM)
    [dimensions] = [row for row in rows.values() if row["adapter"] == "query_key"]
    assert {*dimensions["tensors"]} == {
        f"attention.{name}.{of}" for name in ("query", "key") for of in ("weight", "bias")
    }
    assert dimensions["parameters"] == 2 * 12 * 13 and dimensions["refused"] == QUERY_KEY
    asked = {"stream": 0.5, "query_key": 0.5, "blocks": f"{stream['path']},{dimensions['path']}"}
    small = paramtrans.translate(Transformer().eval(), calibrate=torch.randn(40, 5, 4), **asked)
    assert [row.title for row in small.paramtrans_blocks] == [dimensions["title"], stream["title"]]


class Unused(nn.Module):
    """Layers that nothing passes, and that no output depends on."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down, self.never = nn.Linear(4, 12), nn.Linear(12, 3), nn.Linear(4, 8)
        self.aside = nn.Sequential(nn.Linear(4, 10), nn.ReLU(), nn.Linear(10, 2))

    def forward(self, x: Tensor) -> Tensor:
        self.aside(x)
        return self.down(F.relu(self.up(x)))


def test_layers_that_no_output_depends_on_stay_and_are_said() -> None:
    document = describe_groups(Unused().eval(), "*", [torch.randn(4, 4)])
    assert [row["hidden"] for row in document["blocks"]] == [[12]]
    assert document["stays"][UNUSED] == parameters(Unused().never) + parameters(Unused().aside)
    small = paramtrans.translate(Unused().eval(), ratio=0.5, calibrate=torch.randn(40, 4))
    assert small.up.out_features == 6 and small.never.out_features == 8 and small.aside[0].out_features == 10


def test_groups_that_a_pattern_leaves_out_are_not_said_to_be_impossible() -> None:
    inputs = [torch.randn(4, 5, 4)]
    everything, some = (describe_groups(chain().eval(), pattern, inputs) for pattern in ("*", "2"))
    [row] = some["blocks"]
    assert row["path"] == "2" and "of groups that --blocks leaves out" not in everything["stays"]
    assert some["stays"].pop("of groups that --blocks leaves out") == parameters(chain()) - row["parameters"] - sum(
        everything["stays"].values()
    )
    assert some["stays"] == everything["stays"]
    with pytest.raises(SpecMismatch, match='no group of units has a path that matches "zz"; there are "0", "4", "2"'):
        describe_groups(chain().eval(), "zz", inputs)


NETWORK = """
import torch
from torch import nn

class Fixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down, self.last = nn.Linear(4, 12), nn.Linear(12, 8), nn.Linear(8, 3)

    def forward(self, x):
        return self.last(torch.relu(self.down(torch.relu(self.up(x)).view(-1, 3, 4).flatten(1))))
"""


@pytest.mark.parametrize("quiet", [[], ["--quiet"]])
def test_groups_that_stay_are_said_once_quiet_or_not(
    quiet: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nets, model, data = tmp_path / "nets.py", tmp_path / "model.safetensors", tmp_path / "x.npy"
    nets.write_text(NETWORK)
    layers = {"up": nn.Linear(4, 12), "down": nn.Linear(12, 8), "last": nn.Linear(8, 3)}
    save_file(nn.ModuleDict(layers).state_dict(), model)
    numpy.save(data, torch.randn(40, 4).numpy())
    arguments = ["translate", str(model), "--arch", f"{nets}:Fixed", "--calibrate", str(data), *quiet]
    said = "up stays as it is: the code around it takes no other number of units (nets.py:11"
    assert main([*arguments, "-o", str(tmp_path / "small.safetensors")]) == 0
    answer = capsys.readouterr().out
    assert (said in answer) == (bool(quiet) and "--captured" in answer)  # else it is a warning
    assert main([*arguments, "-o", str(tmp_path / "again.safetensors"), "--json"]) == 0
    assert "takes no other number" in json.loads(capsys.readouterr().out)["refused"]["up"]
