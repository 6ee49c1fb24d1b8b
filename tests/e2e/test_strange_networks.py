"""Networks that files name, inputs that lead out of the finite numbers, and commands that have nothing to do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from paramtrans import load_translated
from paramtrans.cli.main import main
from paramtrans.errors import StoreError
from paramtrans.networks.files import ATTRIBUTE, Replaced, save_translated
from paramtrans.networks.loading import architectures
from paramtrans.storage import json_files, sealed_params

NETS = """
from torch import nn

def small():
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
"""


@pytest.fixture
def model(tmp_path: Path) -> list[str]:
    """What `translate` is given: a file of parameters, and what makes the network."""
    (tmp_path / "nets.py").write_text(NETS)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
    torch.save(network.state_dict(), tmp_path / "model.pt")
    return [str(tmp_path / "model.pt"), "--arch", f"{tmp_path / 'nets.py'}:small"]


def data(tmp_path: Path, scale: float = 1.0) -> str:
    values = numpy.random.default_rng(0).standard_normal((24, 6)).astype("float32")
    numpy.save(tmp_path / "data.npy", values * numpy.float32(scale))
    return str(tmp_path / "data.npy")


def recorded(tmp_path: Path, architecture: str) -> Path:
    """A stranger's file that names this architecture, its checksums right."""
    path = tmp_path / "small.safetensors"
    record = {"format": 2, "paramtrans": "0.1.0", "architecture": architecture, "blocks": []}
    sealed_params.save_params(path, {"weight": torch.zeros(2)}, record)
    return path


@pytest.mark.parametrize(
    "query",
    [
        "weights=DEFAULT",
        "weights_backbone=DEFAULT",
        "num_classes=2000000",
        "num_classes=-1",
        "pretrained=true",
        "progress=true",
        'num_classes="x"',
        "num_classes=[1]",
        "norm_layer=x",
        "width_mult=1e9",
        "num_classes=NaN",
    ],
)
def test_options_of_an_architecture_in_a_file_are_of_known_bounded_kinds(
    tmp_path: Path, query: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", lambda *_, **__: pytest.fail("asked a network"))
    with pytest.raises(StoreError, match="no file may"):
        load_translated(recorded(tmp_path, f"torchvision:resnet18?{query}"))


def test_a_file_names_no_network_far_larger_than_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(architectures, "FURTHER", 0)
    with pytest.raises(StoreError, match="far more than is here"):
        load_translated(recorded(tmp_path, "torchvision:resnet18"))


def test_nobody_asks_for_weights_that_are_fetched_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", lambda *_, **__: pytest.fail("asked a network"))
    with torch.device("meta"):
        assert architectures.build("torchvision:deeplabv3_mobilenet_v3_large")


def test_a_record_that_could_not_be_read_again_is_not_written(tmp_path: Path) -> None:
    network = nn.Linear(2, 2)
    for error in (float("nan"), float("inf")):
        setattr(network, ATTRIBUTE, (Replaced("", "mlp", {}, {}, {}, "mlp", error),))
        with pytest.raises(StoreError, match="is not written"):
            save_translated(network, tmp_path / "small.safetensors")
    assert list(tmp_path.iterdir()) == []


def shell(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    capsys.readouterr()
    status = main(["translate", *arguments])
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return status, out, err


def test_inputs_that_lead_out_of_the_finite_numbers_write_nothing(
    model: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "small.safetensors"
    status, out, err = shell(capsys, *model, "--calibrate", data(tmp_path, 3e38), "-o", str(output), "--json")
    assert (status, out) == (2, "") and err.count("error:") == 1
    assert not output.exists() and not sealed_params.record_path(output).exists()
    status, out, _ = shell(capsys, *model, "--calibrate", data(tmp_path), "-o", str(output), "--json")
    assert status == 0 and 0 < json.loads(out)["output_error"] < 1
    assert load_translated(output, architectures.build(model[2]))


@pytest.mark.parametrize("asked", [["--ratio", "1"], ["--ratio", "0.999"], ["--parameters", "100000"]])
def test_nothing_done_is_said(
    model: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    asked: list[str],
) -> None:
    output = str(tmp_path / "small.safetensors")
    status, _, err = shell(capsys, *model, "--calibrate", data(tmp_path), "-o", output, *asked)
    assert status == 0 and "nothing was translated: every block keeps its width" in err + caplog.text


def test_a_measured_budget_is_used_up(model: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With 16 hidden units there are 163 parameters, 10 fewer for each that goes; the shares alone leave 83 or 123."""
    asked = ["--calibrate", data(tmp_path), "--parameters", "115", "--measured", "--json"]
    status, out, _ = shell(capsys, *model, *asked, "-o", str(tmp_path / "small.safetensors"))
    assert status == 0 and json.loads(out)["after"]["parameters"] == 113


def test_an_output_never_takes_the_place_of_an_input(
    model: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from safetensors.torch import save_file

    path = tmp_path / "model.safetensors"
    save_file(torch.load(model[0], weights_only=True), path)
    before, arguments = path.read_bytes(), [str(path), *model[1:], "--with", "prune", "--calibrate", data(tmp_path)]
    status, _, err = shell(capsys, *arguments, "-o", str(path))
    assert status == 2 and "--force" in err and path.read_bytes() == before
    link = tmp_path / "link.safetensors"
    link.symlink_to(path)
    assert shell(capsys, *arguments, "-o", str(link), "--force")[0] == 2 and path.read_bytes() == before
    record = sealed_params.record_path(tmp_path / "new.safetensors")
    record.symlink_to("/dev/null")
    assert shell(capsys, *arguments, "-o", str(tmp_path / "new.safetensors"))[0] == 2 and record.is_symlink()
    assert shell(capsys, *arguments, "-o", str(path), "--force")[0] == 0 and path.read_bytes() != before


def test_a_card_with_odd_content_is_told_in_words(
    model: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    from paramtrans.plugins import components
    from paramtrans.translators.saving import find_translator

    folder = shutil.copytree(find_translator("mnist_conv_to_conv", components()), tmp_path / "translator")
    card: dict[str, Any] = json_files.unsealed(folder, json_files.read_json(folder / "card.json"))
    for results in ({}, {"methods": {"translated": {}}}, {"methods": 3}, {"methods": {"translated": {"mean": "x"}}}):
        json_files.write_sealed(folder / "card.json", {**card, "results": results})
        output = str(tmp_path / "small.safetensors")
        status, _, err = shell(capsys, *model, "--with", str(folder), "-o", output, "--calibrate", data(tmp_path))
        assert status == 2 and err.count("\n") <= 2, err


STRANGE = """
import torch
from torch import nn


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.f = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 6))

    def forward(self, x):
        return self.f(self.f(x))


class Noisy(Twice):
    def forward(self, x):
        return self.f(x) + torch.rand(1)
"""


@pytest.mark.usefixtures("linear_blocks")
def test_blocks_that_are_no_blocks_lead_to_units_and_chance_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "strange.py").write_text(STRANGE)
    network = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 6))
    save_file({f"f.{name}": tensor for name, tensor in network.state_dict().items()}, tmp_path / "x.safetensors")
    save_file({"x": torch.randn(8, 6)}, tmp_path / "inputs.safetensors")
    given = [str(tmp_path / "x.safetensors"), "--calibrate", str(tmp_path / "inputs.safetensors"), "--arch"]
    twice, noisy = (f"{tmp_path / 'strange.py'}:{name}" for name in ("Twice", "Noisy"))
    command = [*given, twice, "-o", str(tmp_path / "small.safetensors")]
    status, _, err = shell(capsys, *command, "--by", "blocks")
    assert status == 2 and "passed 2 times" in err and "--by units" in err
    assert main(["inspect", *given, twice, "--by", "blocks"]) == 0 and "--by units" in capsys.readouterr().out
    assert shell(capsys, *command)[0] == 0
    assert main(["inspect", *given, noisy, "--by", "units"]) == 2 and "draws at random" in capsys.readouterr().err
