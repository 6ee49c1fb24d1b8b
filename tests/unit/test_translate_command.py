"""`paramtrans translate` on a small network of one's own: its answer, its files, what is refused at once."""

from __future__ import annotations

import html
import json
from math import nan
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import paramtrans
from paramtrans.cli.main import main
from paramtrans.errors import SpecMismatch
from paramtrans.networks.depth.left_out import LeftOut
from paramtrans.networks.files import ATTRIBUTE, MODULES
from paramtrans.networks.parts.replacing import ReplacedPart
from paramtrans.networks.results import exporting
from paramtrans.networks.results.described import STEPS, steps_of, takes_translator
from paramtrans.networks.results.stock import _advice
from paramtrans.networks.translation import _warn
from paramtrans.networks.units.narrowed import NarrowedGroup

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


def test_the_page_says_what_was_done_and_by_what(command: list[str], tmp_path: Path) -> None:
    def facts(*asked: str) -> dict[str, str]:
        assert main([*command, *asked, "--report", f"{tmp_path}/small.html"]) == 0
        record = (tmp_path / "small.html").read_text().partition("facts&#34;: ")[2].partition("}")[0]
        made: dict[str, str] = json.loads(html.unescape(record) + "}")
        return made

    made = facts("--ratio", "0.5")
    assert (made["what was done"], made["by"]) == (STEPS["units"], "refit")
    made = facts("--to", "2=linear_map", "--finish", "1", "--option", "steps=1")
    assert (made["what was done"], made["by"]) == (STEPS["replaced"], "finish")


def test_what_cannot_be_written_is_refused_before_any_work(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        "paramtrans.networks.loading.parameter_files.with_parameters", lambda *_: pytest.fail("work was done")
    )
    assert main([*command, "--stock", f"{tmp_path}/stock"]) == 2
    assert "a network of your own has no form but its own; leave out --stock" in capsys.readouterr().err
    inside = f"{tmp_path}/stock/small.html"
    assert main([*command, "--stock", f"{tmp_path}/stock", "--report", inside]) == 2
    assert f"--report {inside}: lies in the folder of --stock" in capsys.readouterr().err
    host = ["task:mnist:conv?channels=4" if ".py:" in word else word for word in command]
    assert main([*host, "--stock", f"{tmp_path}/stock"]) == 2
    assert "its source has no form of its own" in capsys.readouterr().err
    assert main([*command, "-o", f"{tmp_path}/nets.py/small.safetensors"]) == 2
    assert "Not a directory; choose another place" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("errors", "said"), [([7.55, 10.2, 1.18], "1.18 to 10.20 "), ([nan, 0.5], "0.50 to nan "), ([0.5, 0.5], "0.50 ")]
)
def test_a_warning_names_the_smallest_and_the_largest_error(
    errors: list[float], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    _warn([NarrowedGroup("up", "units", (8, 4), (20, 10), error) for error in errors])
    assert f"at a feature error of {said}(1 is" in caplog.text


def test_whole_blocks_that_went_are_no_work_of_a_translator() -> None:
    network = nn.Identity()
    setattr(network, ATTRIBUTE, [LeftOut("layers.1", "Block", (10, 0), None, True)])
    assert steps_of(network) == [STEPS["left out"]] and not takes_translator(network)
    stream = NarrowedGroup("embed", "stream", (8, 4), (20, 10))
    setattr(network, ATTRIBUTE, [LeftOut("layers.1", "Block", (10, 0), None, True), stream])
    setattr(network, MODULES, ["a norm"])
    assert takes_translator(network)
    assert steps_of(network) == [STEPS["left out"], STEPS["rotated"], STEPS["stream"]]


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


def test_advice_on_stock_fits_what_was_done() -> None:
    network = nn.Identity()
    for records, said in (
        ([("embed", "stream", (8, 4)), ("up", "units", (64, 32))], None),
        ([("heads", "query_key", (8, 4)), ("up", "units", (64, 32))], "leave out --query-key"),
    ):
        setattr(network, ATTRIBUTE, [NarrowedGroup(*record, (20, 10)) for record in records])
        advice = _advice(network)
        assert advice is None if said is None else said in (advice or "")
    part = ReplacedPart("attn", "Attention", "linear_attention", {}, (20, 10), True, None, "random")
    setattr(network, ATTRIBUTE, [part])
    assert "blocks of another architecture (--to)" in (_advice(network) or "")
