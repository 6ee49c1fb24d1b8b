"""Networks for other programs: loaded in fresh processes where paramtrans cannot be imported, with the same outputs."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

import paramtrans
from paramtrans.cli.main import main
from paramtrans.errors import SpecMismatch, StoreError
from paramtrans.networks.results import exporting

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
WITH_ONNX = """
import sys
sys.modules["paramtrans"] = sys.modules["torch"] = None
import onnxruntime
from safetensors.numpy import load_file, save_file
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
names = [one.name for one in session.get_outputs()]
save_file(dict(zip(names, session.run(None, load_file(sys.argv[2])))), sys.argv[3])
"""
WITH_EXPORT = """
import sys
sys.modules["paramtrans"] = sys.modules["torchvision"] = None
import torch
from safetensors.torch import load_file, save_file
given = load_file(sys.argv[2])
network = torch.export.load(sys.argv[1]).module()
with torch.no_grad():
    save_file(network(given["input"]) if "input" in given else network(**given), sys.argv[3])
"""


class TwoInputs(nn.Module):
    """Tokens and their weights in, two tensors out; what it gives beside them is no tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.layer = nn.Embedding(20, 6), nn.Linear(6, 4)

    def forward(self, tokens: Tensor, weights: Tensor) -> dict[str, Any]:
        hidden = torch.relu(self.embedding(tokens)) * weights[:, None, None]
        return {"scores": self.layer(hidden), "mean": hidden.mean(1), "cache": object()}


def image_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), BasicBlock(8, 8), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()


def elsewhere(code: str, file: Path, given: dict[str, Tensor]) -> dict[str, Tensor]:
    """What another process makes of a file."""
    save_file(given, file.with_name("given.safetensors"))
    arguments = [str(file), *(str(file.with_name(f"{name}.safetensors")) for name in ("given", "found"))]
    subprocess.run([sys.executable, "-c", code, *arguments], check=True)
    return load_file(file.with_name("found.safetensors"))


PT2 = pytest.param("pt2", WITH_EXPORT, marks=pytest.mark.slow)


@pytest.mark.thorough
@pytest.mark.parametrize(("form", "code"), [("onnx", WITH_ONNX), PT2])
def test_a_small_network_from_the_shell_is_run_by_other_programs(tmp_path: Path, form: str, code: str) -> None:
    network, images = image_network(), torch.randn(40, 3, 9, 9)
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    numpy.save(tmp_path / "images.npy", images.numpy())
    (tmp_path / "nets.py").write_text(
        "from torch import nn\nfrom torchvision.models.resnet import BasicBlock\ndef small():\n"
        "    return nn.Sequential(nn.Conv2d(3, 8, 3), BasicBlock(8, 8), nn.AdaptiveAvgPool2d(1), nn.Flatten())\n"
    )
    file, out = tmp_path / f"small.{form}", tmp_path / "small.safetensors"
    words = ["translate", tmp_path / "model.safetensors", "--arch", f"{tmp_path / 'nets.py'}:small", "-o", out]
    words += ["--calibrate", tmp_path / "images.npy", "--onnx" if form == "onnx" else "--export", file, "--quiet"]
    assert main([str(word) for word in words]) == 0
    small = paramtrans.load_translated(out, image_network())
    for count in (1, 5):
        outputs = elsewhere(code, file, {"input": images[:count]})
        torch.testing.assert_close(outputs["output"], small(images[:count]).detach(), rtol=1e-4, atol=1e-4)


@pytest.mark.thorough
@pytest.mark.parametrize(("form", "code"), [("onnx", WITH_ONNX), PT2])
def test_several_inputs_and_outputs_keep_their_names_and_tokens_may_be_more(
    tmp_path: Path, form: str, code: str
) -> None:
    network, file = TwoInputs().eval(), tmp_path / f"network.{form}"
    given = {"tokens": torch.randint(0, 20, (3, 5)), "weights": torch.rand(3)}
    (paramtrans.save_onnx if form == "onnx" else paramtrans.save_exported)(network, file, given)
    more = {"tokens": torch.randint(0, 20, (4, 9)), "weights": torch.rand(4)}
    outputs = elsewhere(code, file, more)
    wanted = network(**more)
    assert outputs.keys() == {"scores", "mean"}
    for name, tensor in outputs.items():
        torch.testing.assert_close(tensor, wanted[name].detach(), rtol=1e-4, atol=1e-4)


@pytest.mark.thorough
@pytest.mark.parametrize(("form", "code"), [("onnx", WITH_ONNX), PT2])
def test_blocks_of_another_architecture_that_became_narrower_are_run_by_other_programs(
    tmp_path: Path, form: str, code: str
) -> None:
    network, images, file = image_network(), torch.randn(40, 3, 9, 9), tmp_path / f"small.{form}"
    then = {"matching": {"steps": 3}}
    other = paramtrans.translate(network, to={"1": "bottleneck"}, options={"steps": 3}, then=then, calibrate=images)
    small = paramtrans.translate(other, ratio=0.5, calibrate=images)
    sizes = [sum(tensor.numel() for tensor in each.parameters()) for each in (network, other, small)]
    assert sizes == sorted(sizes, reverse=True) and len({*sizes}) == 3
    paramtrans.save_translated(small, tmp_path / "small.safetensors")
    again = paramtrans.load_translated(tmp_path / "small.safetensors", image_network())
    assert torch.equal(again(images), small(images))
    (paramtrans.save_onnx if form == "onnx" else paramtrans.save_exported)(again, file, images[:2])
    outputs = elsewhere(code, file, {"input": images[:5]})
    torch.testing.assert_close(outputs["output"], small(images[:5]).detach(), rtol=1e-4, atol=1e-4)


@pytest.mark.thorough
def test_no_file_holds_paths_of_this_machine() -> None:
    network, images = image_network(), torch.randn(2, 3, 9, 9)
    with zipfile.ZipFile(__import__("io").BytesIO(exporting.exported_bytes(network, images))) as archive:
        contents = [archive.read(name) for name in archive.namelist()]
    for content in (*contents, exporting.onnx_bytes(network, images)):
        assert str(Path(torch.__file__).parent).encode() not in content
        assert str(Path(paramtrans.__file__).parent).encode() not in content


@pytest.mark.thorough
def test_where_onnx_has_no_form_for_any_number_of_tokens_it_has_one_for_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    whole = exporting._translated

    def fixed(network: nn.Module, inputs: Any, free_tokens: bool) -> bytes:
        if free_tokens:
            raise SpecMismatch("ONNX: this network has no such form")
        return whole(network, inputs, free_tokens)

    monkeypatch.setattr(exporting, "_translated", fixed)
    given = {"tokens": torch.randint(0, 20, (3, 5)), "weights": torch.rand(3)}
    paramtrans.save_onnx(TwoInputs().eval(), tmp_path / "x.onnx", given)
    assert "it takes as many as it was given here" in caplog.text and (tmp_path / "x.onnx").exists()
    with pytest.raises(SpecMismatch, match="no such form"):
        paramtrans.save_onnx(nn.Linear(3, 3).eval(), tmp_path / "y.onnx", torch.randn(2, 3))


class Drawn(nn.Module):
    """Gives something else each time."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x * self.calls


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


def test_what_is_not_the_same_is_not_written(tmp_path: Path) -> None:
    inputs = torch.randn(4, 3)
    with pytest.raises(SpecMismatch, match="onnxruntime gives something else than the network in 'output'"):
        paramtrans.save_onnx(Drawn().eval(), tmp_path / "x.onnx", inputs)
    with pytest.raises(SpecMismatch, match=r"torch\.export cannot follow this network"):
        paramtrans.save_exported(Branching().eval(), tmp_path / "x.pt2", inputs)
    with pytest.raises(SpecMismatch, match="in eval mode"):
        paramtrans.save_exported(nn.Linear(3, 3), tmp_path / "x.pt2", inputs)
    with pytest.raises(SpecMismatch, match="2 examples or more"):
        paramtrans.save_exported(nn.Linear(3, 3).eval(), tmp_path / "x.pt2", inputs[:1])
    (tmp_path / "link.onnx").symlink_to(tmp_path / "x")
    with pytest.raises(StoreError, match="a symbolic link"):
        paramtrans.save_onnx(nn.Linear(3, 3).eval(), tmp_path / "link.onnx", inputs)
    assert [path.name for path in tmp_path.iterdir()] == ["link.onnx"]


def test_flags_that_do_not_go_together_are_told_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "translate",
        str(tmp_path / "none.pt"),
        "--arch",
        "torchvision:resnet18",
        "-o",
        str(tmp_path / "x.safetensors"),
    ]
    for flags, problem in {
        ("--onnx", "x.pt"): "must end in .onnx",
        ("--export", "x.pt2"): "takes --calibrate DATA",
    }.items():
        assert main([*words, *flags]) == 2 and problem in capsys.readouterr().err


@pytest.mark.thorough
@pytest.mark.parametrize("precision", [torch.bfloat16, pytest.param(torch.float16, marks=pytest.mark.slow)])
def test_a_network_in_half_precision_is_told_to_be_given_in_float32(tmp_path: Path, precision: torch.dtype) -> None:
    network, images = image_network().to(precision), torch.randn(4, 3, 8, 8)
    with pytest.raises(SpecMismatch, match=r"is in b?float16; .*float32.*save_onnx\(network\.float\(\)"):
        paramtrans.save_onnx(network, tmp_path / "small.onnx", images.to(precision))
    assert not any(tmp_path.iterdir())
    paramtrans.save_onnx(network.float(), tmp_path / "small.onnx", images)
