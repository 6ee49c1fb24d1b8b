"""Trained translators in whole networks: the shipped ones on real hosts, and one of a user's own on his network."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor, nn

import paramtrans
from paramtrans import PretrainedTranslator, components
from paramtrans.api.task import Split, Task
from paramtrans.cli.main import main
from paramtrans.errors import ParamtransError, SpecMismatch, StoreError
from paramtrans.networks.loading import architectures
from paramtrans.translators.saving import load_translator, name_of, save_translator
from paramtrans.zoo.host_file import HostFile

FILE = Path(__file__).parents[2] / "examples" / "data" / "paper_hosts.safetensors"
ARCHITECTURE = "task:mnist:basic_block"
NAMES = [entry.name for entry in components().of_kind("pretrained_translator")]
KINDS = {name: components().name_of("block_adapter", type(load_translator(name).target)) for name in NAMES}
"""What each writes."""
EXAMPLES = 1000


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    made: Task = components().create("task", "mnist")
    made.prepare(tmp_path_factory.mktemp("data"))
    return made


@pytest.fixture(scope="module")
def test_images(task: Task) -> Split:
    return task.split("test").first(EXAMPLES)


@pytest.fixture
def host() -> nn.Module:
    network = architectures.build(ARCHITECTURE)
    network.load_state_dict(HostFile(FILE).network(3))
    return network.eval()


def shell(capsys: pytest.CaptureFixture[str], *arguments: Any) -> tuple[int, str, str]:
    status = main([str(argument) for argument in arguments])
    out = capsys.readouterr()
    return status, out.out, out.err


@torch.no_grad()
def accuracy(network: nn.Module, task: Task, examples: Split) -> float:
    right = network(task.to_input(examples.inputs)).argmax(1) == examples.labels
    return 100 * right.float().mean().item()


def with_zero_block(network: nn.Module) -> nn.Module:
    """The residual path alone."""
    zero = copy.deepcopy(network)
    for parameter in zero.get_submodule("block").parameters():
        parameter.data.zero_()
    return zero


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_translator_makes_a_real_host_smaller_from_the_shell(
    name: str, task: Task, test_images: Split, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    host, small, data = (tmp_path / file for file in ("host.safetensors", "small.safetensors", "images.npy"))
    status, out, err = shell(capsys, "zoo", "take", FILE, host, "--number", 3)
    assert status == 0 and "--arch task:TASK:BLOCK" in out, err
    numpy.save(data, task.to_input(task.split("train").inputs[:32]).numpy())
    status, out, _ = shell(capsys, "inspect", host, "--arch", ARCHITECTURE, "--calibrate", data, "--json")
    seen = json.loads(out)
    assert status == 0 and [(b["path"], b["adapter"], b["refused"]) for b in seen["blocks"]] == [
        ("block", "basic_block", None)
    ]
    assert name in seen["trained"]
    arguments = ("translate", host, "--arch", ARCHITECTURE, "--with", name, "--calibrate", data, "-o", small)
    status, out, err = shell(capsys, *arguments, "--json")
    assert status == 0, err
    result = json.loads(out)
    [block] = result["blocks"]
    assert block["adapters"] == ["basic_block", KINDS[name]] and 0 < block["feature_error"] < 1
    assert result["after"]["parameters"] < result["before"]["parameters"]
    assert "report host" in result["promised"]
    rebuilt = paramtrans.load_translated(small)
    reached = accuracy(rebuilt, task, test_images)
    assert reached > accuracy(with_zero_block(rebuilt), task, test_images) + 10
    status, out, _ = shell(capsys, *arguments)
    assert status == 0 and f"basic_block 6 → {KINDS[name]}" in out and f"Of {name}, on hosts like those" in out


@pytest.mark.parametrize("name", NAMES)
def test_plugins_says_what_a_shipped_translator_translates(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = shell(capsys, "plugins", name)
    assert status == 0 and "BasicBlock, 6 channels, 6 hidden → " in out and f"--with {name}" in out
    assert "report host" in out and "option" not in out


@pytest.mark.parametrize("name", [NAMES[0], *(pytest.param(name, marks=pytest.mark.slow) for name in NAMES[1:])])
def test_python_writes_what_the_shell_does_and_others_go_on(
    name: str, host: nn.Module, task: Task, test_images: Split
) -> None:
    images = task.to_input(task.split("train").inputs[:64])
    small = paramtrans.translate(host, name.replace("_", "-"))
    better = paramtrans.translate(host, name, calibrate=images, then={"matching": {"steps": 60}})
    [alone], [then] = small.paramtrans_blocks, better.paramtrans_blocks
    assert alone.feature_error is None and (alone.kind, alone.target_kind) == ("basic_block", KINDS[name])
    before = paramtrans.translate(host, name, calibrate=images).paramtrans_blocks[0].feature_error
    assert before is not None and then.feature_error < before
    assert accuracy(better, task, test_images) > accuracy(with_zero_block(small), task, test_images)


def test_a_network_of_another_precision_keeps_it(host: nn.Module) -> None:
    wanted = paramtrans.translate(host, "mnist_conv_to_conv")
    small = paramtrans.translate(host.double(), "mnist_conv_to_conv")
    assert {tensor.dtype for tensor in small.block.parameters()} == {torch.float64}
    torch.testing.assert_close(small.block.conv1.weight.float(), wanted.block.conv1.weight, rtol=1e-3, atol=1e-4)


def test_what_a_shipped_translator_cannot_do_is_told(host: nn.Module) -> None:
    plain = nn.Sequential(host.former, host.block, host.latter)
    wide = architectures.build(f"{ARCHITECTURE}?channels=8")
    for problem, network, arguments in (
        ("takes those alone: a network of --arch task:TASK:BLOCK", plain, {"calibrate": torch.rand(4, 1, 28, 28)}),
        ("1: a block of another kind is to stand here; give a few unlabelled inputs", plain, {}),
        (r"block: the translator was trained for another source block \(BasicBlock, 6 channels", wide, {}),
        ("for blocks of another kind", architectures.build("task:mnist:conv?block.hidden=3"), {}),
        ("leave out what asks for another", host, {"ratio": 0.5}),
        ("a trained translator has its own", host, {"options": {"probes": 2}}),
        ('no block has a path that matches "former"; there are "block"', host, {"blocks": "former"}),
    ):
        with pytest.raises(SpecMismatch, match=problem):
            paramtrans.translate(network, "mnist_conv_to_mlp", **arguments)
    with pytest.raises(ParamtransError, match='did you mean "mnist_conv_to_mlp"'):
        paramtrans.translate(host, "mnist_conv_to_mpl")


@pytest.mark.parametrize("flags", [("--ratio", 0.5), ("--parameters", 500), ("--parameters", 500, "--measured")])
def test_widths_asked_of_a_trained_translator_are_refused_and_nothing_is_written(
    flags: tuple[Any, ...], host: nn.Module, task: Task, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, small, data = (tmp_path / file for file in ("host.safetensors", "small.safetensors", "images.npy"))
    numpy.save(data, task.to_input(task.split("train").inputs[:8]).numpy())
    assert shell(capsys, "zoo", "take", FILE, model)[0] == 0
    arguments = ("translate", model, "--arch", ARCHITECTURE, "--with", NAMES[0], "--calibrate", data, "-o", small)
    status, _, err = shell(capsys, *arguments, *flags)
    assert status == 2 and "writes blocks of its own size" in err and "Traceback" not in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["host.safetensors", "images.npy"]


class Block(nn.Module):
    """A BasicBlock as many write it."""

    def __init__(self, channels: int = 4) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        self.conv2, self.bn2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.relu(x + self.bn2(self.conv2(self.bn1(self.conv1(x)).relu())))


class Sum(Block):
    """The same layers, another function."""

    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


@pytest.fixture
def saved_translator(tmp_path: Path) -> Path:
    """A user's own translator, untrained, that reads the block alone: from 4 channels to an MLP of 5 units."""
    registry = components()
    source = registry.create("block_adapter", "basic_block", channels=4)
    target = registry.create("block_adapter", "mlp", channels=4, hidden=5)
    translator = registry.create("translator", "mixer", source, target, layers=1)
    sides = [name_of("block_adapter", adapter, registry) for adapter in (source, target)]
    save_translator(tmp_path / "own", translator, "mixer", *sides)
    return tmp_path / "own"


def test_a_users_own_translator_replaces_the_blocks_that_it_fits_and_the_rest_is_told(
    saved_translator: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), Block(), nn.Conv2d(4, 6, 1), Block(6), nn.Conv2d(6, 4, 1), Sum(), Block()
    )
    images = torch.randn(8, 3, 12, 12)
    small = paramtrans.translate(network, saved_translator, calibrate=images)
    assert [(block.path, block.target_kind) for block in small.paramtrans_blocks] == [("1", "mlp"), ("6", "mlp")]
    assert isinstance(small[3], Block) and isinstance(small[5], Sum) and isinstance(network[1], Block)
    assert "3 stays as it is: the translator was trained for another source block" in caplog.text
    assert "5 stays as it is: it computes something else than basic_block does" in caplog.text
    paramtrans.save_translated(small, tmp_path / "small.safetensors")
    again = paramtrans.load_translated(tmp_path / "small.safetensors", copy.deepcopy(network))
    assert torch.equal(again(images), small.eval()(images))
    with pytest.raises(StoreError, match="does not fit the network"):
        paramtrans.load_translated(tmp_path / "small.safetensors", network[:3])


def test_of_several_families_that_a_translator_writes_one_is_chosen(tmp_path: Path) -> None:
    registry, network, images = components(), nn.Sequential(Block(), Block()), torch.randn(8, 4, 6, 6)
    source, conv, mlp = (
        registry.create("block_adapter", name, channels=4, **options)
        for name, options in (("basic_block", {}), ("conv", {"hidden": 2}), ("mlp", {"hidden": 5}))
    )
    translator = registry.create("translator", "equivariant", source, conv, layers=1, width=8)
    translator.add_family(mlp)
    PretrainedTranslator(translator).save_pretrained(tmp_path / "both")
    for options, kind in ({}, "conv"), ({"target": "conv"}, "conv"), ({"target": "mlp"}, "mlp"):
        small = paramtrans.translate(network, tmp_path / "both", calibrate=images, options=options)
        assert [block.target_kind for block in small.paramtrans_blocks] == [kind, kind]
    with pytest.raises(SpecMismatch, match="trained to write conv, mlp, and not attention"):
        paramtrans.translate(network, tmp_path / "both", calibrate=images, options={"target": "attention"})


def test_what_has_no_place_for_another_kind_of_block_is_told(saved_translator: Path) -> None:
    with pytest.raises(SpecMismatch, match="the network: a MLP takes the place of a whole module inside a network"):
        paramtrans.translate(Block(), saved_translator, calibrate=torch.randn(8, 4, 6, 6))


def test_a_translated_host_of_the_first_format_is_read(host: nn.Module, tmp_path: Path) -> None:
    from paramtrans.networks.files import FORMAT
    from paramtrans.storage import sealed_params

    small = paramtrans.translate(host, "prune", ratio=0.5)
    path = tmp_path / "small.safetensors"
    paramtrans.save_translated(small, path, ARCHITECTURE)
    params, record = sealed_params.load_params(path)
    for block in record["blocks"]:
        del block["target_kind"]
    kept = {key: record[key] for key in ("paramtrans", "architecture", "blocks")}
    sealed_params.save_params(path, params, {"format": 1, **kept})
    again = paramtrans.load_translated(path)
    assert again.paramtrans_blocks == small.paramtrans_blocks and again.block.conv1.out_channels == 3
    sealed_params.save_params(path, params, {"format": FORMAT + 1, **kept})
    with pytest.raises(StoreError, match="update paramtrans"):
        paramtrans.load_translated(path)
