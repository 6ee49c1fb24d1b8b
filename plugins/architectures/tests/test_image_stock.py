"""Smaller networks of timm and torchvision in their library's own form, loaded where paramtrans is not to be had."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from paramtrans_architectures.class_arguments import arguments_of
from paramtrans_architectures.loading_code import loading_code
from safetensors.torch import load_file, save_file
from torch import nn

import paramtrans
from paramtrans.cli.main import main
from paramtrans.errors import ConfigError
from paramtrans.networks.loading import architectures
from paramtrans.networks.results.stock import save_stock

pytestmark = pytest.mark.thorough

IMAGES = torch.randn(40, 3, 32, 32, generator=torch.Generator().manual_seed(0))
ALONE = """
import sys
sys.modules["paramtrans"] = None
import torch
from safetensors.torch import load_file, save_file
folder, images, out = sys.argv[1:4]
if sys.argv[4] == "timm":
    import timm
    network = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
else:
    sys.path.insert(0, folder)
    from load import load
    network = load()
with torch.no_grad():
    save_file({"out": network(load_file(images)["x"])}, out)
"""


@pytest.mark.parametrize(
    ("architecture", "blocks"),
    [
        ("timm:test_vit?num_classes=10&img_size=32", "*.mlp"),
        pytest.param("torchvision:resnet50?num_classes=10", "layer?.?.conv1,layer?.?.conv2", marks=pytest.mark.slow),
    ],
)
def test_the_library_loads_the_smaller_network_by_itself(tmp_path: Path, architecture: str, blocks: str) -> None:
    torch.manual_seed(0)
    network = architectures.build(architecture).eval()
    save_file(network.state_dict(), tmp_path / "given.safetensors")
    save_file({"x": IMAGES}, tmp_path / "images.safetensors")
    out, stock = tmp_path / "small.safetensors", tmp_path / "stock"
    command = ["translate", str(tmp_path / "given.safetensors"), "--arch", architecture, "--with", "prune"]
    files = ["--calibrate", str(tmp_path / "images.safetensors"), "-o", str(out), "--stock", str(stock)]
    assert main([*command, *files, "--by", "units", "--blocks", blocks, "--quiet"]) == 0
    small = paramtrans.load_translated(out)
    assert sum(p.numel() for p in small.parameters()) < 0.8 * sum(p.numel() for p in network.parameters())
    arguments = [str(stock), str(tmp_path / "images.safetensors"), str(tmp_path / "theirs.safetensors")]
    subprocess.run([sys.executable, "-c", ALONE, *arguments, architecture.partition(":")[0]], check=True)
    with torch.no_grad():
        torch.testing.assert_close(load_file(arguments[2])["out"], small(IMAGES), rtol=1e-4, atol=1e-4)
    name = architecture.partition(":")[2].partition("?")[0]
    card = (stock / "README.md").read_text()
    assert name.replace("_", "\\_") in card and "network = " in card


def test_widths_that_no_argument_gives_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    architecture = "torchvision:resnet18?num_classes=10"
    small = paramtrans.translate(architectures.build(architecture).eval(), "prune", calibrate=IMAGES, by="units")
    with pytest.raises(ConfigError, match=r"no arguments of ResNet give these sizes \(the nearest differs in "):
        save_stock(small, architecture, tmp_path / "stock", IMAGES)
    assert not [*tmp_path.iterdir()]


def test_a_refusal_names_the_layers_that_no_argument_gives(tmp_path: Path) -> None:
    network = architectures.build("timm:test_vit").eval()
    images = torch.randn(2, 3, 160, 160)
    small = paramtrans.translate(network, "prune", ratio=0.5, by="units", calibrate=images)
    with pytest.raises(ConfigError, match=r"the nearest differs in blocks\.0\.attn\.qkv, blocks\.0\.attn\.proj"):
        save_stock(small, "timm:test_vit", tmp_path / "stock", images)


def test_a_form_that_cannot_be_had_costs_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    architecture, out = "torchvision:resnet18?num_classes=10", tmp_path / "small.safetensors"
    save_file(architectures.build(architecture).state_dict(), tmp_path / "given.safetensors")
    save_file({"x": IMAGES}, tmp_path / "images.safetensors")
    command = ["translate", str(tmp_path / "given.safetensors"), "--arch", architecture, "--with", "prune", "--quiet"]
    files = ["--calibrate", str(tmp_path / "images.safetensors"), "-o", str(out), "--stock", str(tmp_path / "stock")]
    assert main([*command, *files]) == 2
    assert "small.safetensors is written" in capsys.readouterr().err and not (tmp_path / "stock").exists()
    assert paramtrans.load_translated(out)(IMAGES).shape == (40, 10)


class Named(nn.Linear):
    """A class that hands on what it knows no name of."""

    def __init__(self, hidden: int, **others: Any) -> None:
        super().__init__(4, hidden, **others)


class Inherited(Named):
    """A class without a constructor of its own."""


@pytest.mark.parametrize("kind", [Named, Inherited])
def test_arguments_of_any_name_are_seen_and_the_class_stays_as_it_was(kind: type[nn.Module]) -> None:
    before = dict(vars(kind))
    network, arguments = arguments_of(lambda: kind(3, bias=False))
    assert isinstance(network, kind) and arguments == {"hidden": 3, "bias": False}
    assert dict(vars(kind)) == before
    assert "hidden=3, bias=False" in loading_code(kind, arguments)


def test_code_has_only_what_differs_from_the_signature() -> None:
    code = loading_code(nn.LayerNorm, {"normalized_shape": (3,), "eps": 1e-3, "bias": True})
    assert "torch.nn.modules.normalization.LayerNorm(normalized_shape=(3,), eps=0.001)" in code
    class_code = loading_code(nn.Linear, {"in_features": 2, "out_features": [partial(nn.LayerNorm, eps=1.0)]})
    assert "[functools.partial(torch.nn.modules.normalization.LayerNorm, eps=1.0)]" in class_code
    with pytest.raises(ConfigError, match="no form in code"):
        loading_code(nn.Linear, {"in_features": object()})
