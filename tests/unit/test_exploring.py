"""Widths side by side, and the knee of their curve; texts that go on."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from paramtrans.cli.explore import _no_knee
from paramtrans.cli.main import main
from paramtrans.networks.results.exploring import knee
from paramtrans.networks.results.samples import CONTINUED, samples


def test_the_knee_is_farthest_below_the_line_between_both_ends() -> None:
    assert knee([1.0, 0.8, 0.6, 0.4, 0.2], [0.0, 0.01, 0.03, 0.5, 1.0]) == 2
    assert knee([1.0, 0.5, 0.0], [0.0, 0.5, 1.0]) is None  # a straight line
    assert knee([1.0, 0.5, 0.0], [0.0, 0.9, 1.0]) is None  # above it
    assert knee([1.0, 0.5], [0.0, 1.0]) is None
    assert knee([1.0, 0.5, 0.0], [0.2, 0.2, 0.2]) is None
    assert knee([1.0, 0.5, 0.0], [0.0, float("nan"), float("nan")]) is None


def test_widths_are_compared_and_the_one_at_the_knee_is_written_by_translate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("nets.py").write_text(
        "from torch import nn\ndef small():\n    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 5))\n"
    )
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 5))
    network[0].weight.data[8:], network[0].bias.data[8:] = network[0].weight.data[:8], network[0].bias.data[:8]
    save_file(network.state_dict(), "model.safetensors")
    numpy.save("x.npy", torch.randn(200, 6).numpy())
    words = ["model.safetensors", "--arch", "nets.py:small", "--calibrate", "x.npy", "--predicts", "values", "--quiet"]
    assert main(["explore", *words, "--ratios", "0.25,0.75,0.5", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert [point["ratio"] for point in answer["points"]] == [0.75, 0.5, 0.25]
    assert answer["knee"] == 0.5 and answer["points"][1]["loss"] < 1e-3 < answer["points"][2]["loss"]
    assert all(point["held_out"] for point in answer["points"])
    command = shlex.split(answer["command"])
    assert command[:2] == ["paramtrans", "translate"] and main([*command[1:], "--predicts", "values", "--json"]) == 0
    written = json.loads(capsys.readouterr().out)
    assert written["after"]["parameters"] == answer["points"][1]["after"]["parameters"]
    assert written["output_error"] == pytest.approx(answer["points"][1]["loss"], abs=1e-6)
    assert {path.name for path in tmp_path.iterdir() if "small" in path.name} == {
        "small.safetensors",
        "small.safetensors.json",
    }

    assert main(["explore", *words, "--ratios", "0.75,0.5", "--report", "page.html"]) == 0
    page = Path("page.html").read_text()
    assert "There is no knee" in page and "is the width farthest below" not in page and "To write it" not in page


def test_why_there_is_no_knee_is_said() -> None:
    assert _no_knee([]) == "one takes three widths or more"


def test_what_explore_cannot_do_is_told_first(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["explore", "none.pt", "--arch", "torchvision:resnet18"]
    for flags, problem in {
        (): "without inputs there is no loss",
        ("--calibrate", "x.npy", "--ratios", "0.5,2"): "expected shares of the hidden units between 0 and 1",
        ("--calibrate", "x.npy", "--ratios", "half"): "expected shares of the hidden units between 0 and 1",
        ("--calibrate", "x.npy", "--report", "x.txt"): "must end in .html",
    }.items():
        assert main([*words, *flags]) == 2 and problem in capsys.readouterr().err


class Counts(nn.Module):
    """The next token is the last one plus a number."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.step = step

    def forward(self, input_ids: Tensor) -> Tensor:
        return nn.functional.one_hot((input_ids + self.step) % 50, 50).float()


def test_texts_go_on_with_the_most_likely_tokens() -> None:
    batch = {"input_ids": torch.arange(12).reshape(3, 4) + 1}
    shown = samples(Counts(1), Counts(2), [batch], "tokens", lambda tokens: " ".join(f"w{token}" for token in tokens))
    assert [sample.text for sample in shown] == ["w1 w2", "w5 w6", "w9 w10"]
    assert shown[0].before == " ".join(f"w{(2 + number) % 50}" for number in range(1, CONTINUED + 1))
    assert shown[0].after == " ".join(f"w{(2 + 2 * number) % 50}" for number in range(1, CONTINUED + 1))
    assert not shown[0].same
    same = samples(Counts(1), Counts(1), [batch["input_ids"]], "tokens", lambda tokens: None)
    assert same[0].same and same[0].text == "1 2"
    assert samples(Counts(1), Counts(1), [batch], "embedding", lambda tokens: None) == []
