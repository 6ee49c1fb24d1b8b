"""Files of `torch.export.save`: read without torch's own reader, as the networks that they were."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from paramtrans import load_translated
from paramtrans.cli.main import main
from paramtrans.errors import DataError, StoreError
from paramtrans.networks.graph.exported_programs import read_program
from paramtrans.networks.graph.known_operators import known
from paramtrans.networks.graph.narrow import Setting
from paramtrans.networks.graph.numbers import numbers_of
from paramtrans.networks.rebuilding import rebuild

IMAGES = torch.randn(64, 3, 6, 6, generator=torch.Generator().manual_seed(0))


class Network(nn.Module):
    """Layers with names in names, buffers of both kinds, and a function behind them."""

    def __init__(self, code: Callable[[Tensor], Any] = lambda x: x) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.Conv2d(8, 4, 1))
        self.head = nn.Linear(4, 5)
        self.head.weight.requires_grad_(False)
        self.register_buffer("shift", torch.arange(5.0), persistent=False)
        self.code = code

    def forward(self, input: Tensor) -> Any:
        return self.code(self.head(self.body(input).mean((2, 3))) + self.shift + torch.tensor(2.0))


class Canary:
    """Unpickling it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.mkdir, (self.path,)


def save(network: nn.Module, path: Path) -> Path:
    """The network as an exported program for any number of images."""
    program = torch.export.export(network.eval(), (IMAGES[:2],), dynamic_shapes=({0: Dim.AUTO},), strict=False)
    torch.export.save(program, path)
    return path


CODE: dict[str, Callable[[Tensor], Any]] = {
    "several results": lambda x: x.topk(2)[0] + x.topk(2)[1],
    "parts": lambda x: torch.stack(x.split([2, 3], 1)[1].unbind(1), 1).chunk(3, 1)[2],
    "sizes": lambda x: x.view(x.shape[0] // 1, 5).expand(x.shape[0], -1).flatten()[: x.shape[0] * 5],
    "text and kinds": lambda x: torch.einsum("ij,kj->ik", x, x).to(torch.float64).sum(dtype=torch.float32),
    "indices": lambda x: x[:, None, torch.tensor([2, 0])],
    "choices": lambda x: torch.where(x > 0, x.clamp(max=1.0), torch.zeros_like(x)).contiguous(),
    "a dictionary": lambda x: {"all": x, "some": (x[:1], [x[:2]])},
    "conditions": lambda x: nn.functional.pad(x, (0, 1), value=float("inf")).masked_fill(torch.ones(6) > 2, 0),
}


@pytest.mark.parametrize("name", CODE)
def test_a_file_is_the_network_that_it_was(tmp_path: Path, name: str) -> None:
    network = Network(CODE[name])
    program = read_program(save(network, tmp_path / "network.pt2"))
    with torch.no_grad():
        expected, output = network(IMAGES), program(input=IMAGES)
    torch.testing.assert_close(output, expected, rtol=0, atol=0)
    assert program.state_dict().keys() == network.state_dict().keys()
    flags = {name: parameter.requires_grad for name, parameter in program.named_parameters()}
    assert flags == {name: parameter.requires_grad for name, parameter in network.named_parameters()}


def test_what_torch_would_run_is_not_looked_at(tmp_path: Path) -> None:
    path, owned = save(Network(), tmp_path / "network.pt2"), tmp_path / "owned"
    python = f"__import__('os').mkdir({str(owned)!r})"
    with zipfile.ZipFile(io.BytesIO(path.read_bytes())) as archive, zipfile.ZipFile(path, "w") as written:
        for name in archive.namelist():
            content = archive.read(name)
            if name.endswith("models/model.json"):
                document = json.loads(content)
                document["guards_code"] = [f"{python} or True"]
                document["graph_module"]["graph"]["sym_int_values"] = {
                    name: {"as_expr": {"expr_str": python, "hint": None}}
                    for name in document["graph_module"]["graph"]["sym_int_values"]
                }
                content = json.dumps(document).encode()
            elif name.endswith("sample_inputs/model.pt"):
                content = pickle.dumps(Canary(owned), protocol=2)
            written.writestr(name, content)
    assert read_program(path)(IMAGES).shape == (64, 5)
    assert not owned.exists()
    with pytest.raises(Exception):  # noqa: B017 - whatever follows
        torch.export.load(path)
    assert owned.exists(), "torch ran it, so there was something to look away from"


def test_operators_that_write_or_run_are_no_operators() -> None:
    names = ("from_file.default", "save.default", "manual_seed.default", "set_.source_Tensor", "resize_.default")
    assert not any(known(f"torch.ops.aten.{name}") for name in names)
    assert all(getattr(torch.ops.aten, name.partition(".")[0]) for name in names)
    assert known("torch.os.system") is known("_operator.methodcaller") is None
    assert known("torch.ops.aten.relu_.default") is torch.ops.aten.relu_.default
    assert known("torch.ops.aten.gelu.default") is torch.ops.aten.gelu.default


def test_an_operator_that_is_not_known_is_named(tmp_path: Path) -> None:
    path = save(Network(lambda x: torch.special.airy_ai(x)), tmp_path / "network.pt2")
    with pytest.raises(StoreError, match=r"network\.pt2: runs 'torch\.ops\.aten\.special_airy_ai\.default'"):
        read_program(path)


@pytest.mark.parametrize("layer", [nn.BatchNorm1d(4), nn.Dropout(0.5)])
def test_a_program_of_a_network_in_training_is_refused(tmp_path: Path, layer: nn.Module) -> None:
    exported = torch.export.export(nn.Sequential(nn.Linear(3, 4), layer).train(), (torch.randn(5, 3),))
    torch.export.save(exported, tmp_path / "x.pt2")
    with pytest.raises(StoreError, match=r"in training mode|in eval mode"):
        read_program(tmp_path / "x.pt2")


def test_norms_without_running_statistics_are_in_use_as_they_are(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, track_running_stats=False)).eval()
    torch.export.save(torch.export.export(network, (torch.randn(5, 3),)), tmp_path / "x.pt2")
    assert read_program(tmp_path / "x.pt2")(torch.randn(5, 3)).shape == (5, 4)


@pytest.mark.thorough
def test_a_file_that_changes_its_buffers_is_refused(tmp_path: Path) -> None:
    program = torch.export.export(Network().train(), (IMAGES,), strict=False).run_decompositions()
    torch.export.save(program, tmp_path / "network.pt2")
    with pytest.raises(StoreError, match="eval mode"):
        read_program(tmp_path / "network.pt2")


@pytest.mark.thorough
def test_the_command_takes_a_program_and_writes_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    save(Network(lambda x: x.view(-1, 5)), tmp_path / "network.pt2")
    np.save(tmp_path / "images.npy", IMAGES.numpy())
    words = ["translate", "network.pt2", "--calibrate", "images.npy", "-o", "small.safetensors", "--quiet"]
    assert main([*words, "--export", "small.pt2"]) == 0
    assert 'network="export:network.pt2"' in capsys.readouterr().out
    loaded = load_translated("small.safetensors", network="export:network.pt2")
    again = read_program(Path("small.pt2"))
    assert loaded.state_dict().keys() == again.state_dict().keys() == Network().state_dict().keys()
    assert loaded.get_parameter("body.0.weight").shape[0] == 4
    with torch.no_grad():
        torch.testing.assert_close(again(IMAGES)["output"], loaded(IMAGES))
    assert main(["inspect", "small.pt2", "--calibrate", "images.npy"]) == 0
    assert "body.3" in capsys.readouterr().out
    assert main(["inspect", "small.safetensors"]) == 2
    assert "--arch" in capsys.readouterr().err


FACTORY = """
import torch
from torch import nn

class Held(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 4)

    def forward(self, images):
        return self.last(self.first(images.mean((1, 2))).view(-1, 8).relu())

def held():
    return Held()
"""


@pytest.mark.thorough
def test_the_command_takes_the_captured_program_of_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("held.py").write_text(FACTORY)
    params = {"first": nn.Linear(6, 8), "last": nn.Linear(8, 4)}
    torch.save(nn.ModuleDict(params).state_dict(), "held.pt")
    np.save("images.npy", IMAGES.numpy())
    words = ["held.pt", "--arch", "held.py:held", "--by", "units", "--calibrate", "images.npy"]
    assert main(["inspect", *words]) == 0
    assert "--captured" in capsys.readouterr().out
    assert main(["translate", *words, "--captured", "-o", "small.safetensors"]) == 2
    assert main(["translate", *words, "--captured", "-o", "small.pt2", "--quiet"]) == 0
    assert read_program(Path("small.pt2")).get_parameter("first.weight").shape == (4, 6)
    assert {path.name for path in tmp_path.iterdir()} - {"__pycache__"} == {
        "held.py", "held.pt", "images.npy", "small.pt2",
    }  # fmt: skip


@pytest.mark.parametrize("after", [9, -1])
def test_a_record_sets_no_number_to_more_than_it_was(tmp_path: Path, after: int) -> None:
    program = read_program(save(Network(lambda x: x.view(-1, 5)), tmp_path / "network.pt2"))
    assert numbers_of(program)["view.1.1"] == 5
    rebuild(program, [Setting("", "view.1.1", 5, 3)], {})
    assert numbers_of(program)["view.1.1"] == 3
    with pytest.raises(DataError, match="takes the place of"):
        rebuild(program, [Setting("", "view.1.1", 3, after)], {})
