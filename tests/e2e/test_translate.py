"""Whole networks: translated from Python and from the shell, saved, rebuilt, and refused where they should be."""

from __future__ import annotations

import json
import logging
import pickle
import re
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import paramtrans
from paramtrans.cli.main import main
from paramtrans.errors import SpecMismatch, StoreError
from paramtrans.networks.forward.activations import NetworkContext, entering
from paramtrans.networks.forward.spool import Spool
from paramtrans.networks.results.measuring import measure_losses
from paramtrans.networks.translation import BAD
from paramtrans.networks.widths import Budget

NETS = """
import torch
from torch import nn

class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = (nn.Conv2d(8, 8, 3, padding=1, bias=False) for _ in range(2))
        self.bn1, self.bn2 = nn.BatchNorm2d(8), nn.BatchNorm2d(8)

    def forward(self, x):
        return torch.relu(self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x))))) + x)

def small(classes=4):
    return nn.Sequential(nn.Conv2d(3, 8, 3), Block(), Block(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, classes))
"""


@pytest.fixture
def nets(tmp_path: Path) -> Path:
    path = tmp_path / "nets.py"
    path.write_text(NETS)
    return path


@pytest.fixture
def network(nets: Path) -> nn.Module:
    """With hidden units half of which are copies of the others, so that half of them are enough."""
    from paramtrans.networks.loading.architectures import build

    torch.manual_seed(0)
    made = build(f"{nets}:small")
    for block in (made[1], made[2]):
        for tensor in (block.bn1.weight, block.bn1.bias, block.bn2.bias):
            tensor.data.uniform_(0.5, 1.5)
        for tensor in (block.conv1.weight, block.bn1.weight, block.bn1.bias):
            tensor.data[4:] = tensor.data[:4]
    made[5].weight.data[8:], made[5].bias.data[8:] = made[5].weight.data[:8], made[5].bias.data[:8]
    return made.eval()


@pytest.fixture
def images() -> Tensor:
    return torch.randn(24, 3, 9, 9, generator=torch.Generator().manual_seed(1))


def test_a_network_that_half_of_its_units_are_enough_for_keeps_its_function(network: nn.Module, images: Tensor) -> None:
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    small = paramtrans.translate(network, ratio=0.5, calibrate=images.split(10))
    assert [block.path for block in small.paramtrans_blocks] == ["1", "2", "5"]
    assert all(0 <= block.feature_error < 1e-3 for block in small.paramtrans_blocks)
    assert small[1].conv1.out_channels == 4 and small[5].out_features == 8 and not small.training
    torch.testing.assert_close(small(images), network(images), rtol=1e-2, atol=1e-3)
    assert all(torch.equal(network.state_dict()[name], before[name]) for name in before)


def test_later_blocks_make_up_for_what_earlier_ones_changed(network: nn.Module, images: Tensor) -> None:
    torch.manual_seed(3)
    for block in (network[1], network[2]):
        block.conv1.weight.data.normal_()
    errors = {}
    for sequential in (True, False):
        small = paramtrans.translate(network, ratio=0.25, calibrate=[images], by="blocks", sequential=sequential)
        errors[sequential] = (small[:3](images) - network[:3](images)).square().mean().item()
    assert errors[True] < errors[False]


class PostNorm(nn.Module):
    """The feed-forward part of a BERT layer."""

    def __init__(self) -> None:
        super().__init__()
        self.intermediate, self.output = nn.Module(), nn.Module()
        self.intermediate.dense, self.intermediate.intermediate_act_fn = nn.Linear(6, 16), nn.GELU()
        self.output.dense, self.output.LayerNorm = nn.Linear(16, 6), nn.LayerNorm(6)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.intermediate.intermediate_act_fn(self.intermediate.dense(x))
        summed: Tensor = self.output.LayerNorm(self.output.dense(hidden) + x)
        return summed


def test_a_translator_goes_on_from_another_and_batches_may_differ_in_length() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(PostNorm(), PostNorm()).eval()
    sentences = [torch.randn(8, length, 6) for length in (3, 5, 9)]
    matching = {"matching": {"steps": 60, "lr": 0.01, "batch": 32}}
    unseen = torch.randn(50, 4, 6)
    refit = paramtrans.translate(network, ratio=0.25, calibrate=sentences)
    both = paramtrans.translate(network, ratio=0.25, calibrate=sentences, then=matching)
    errors = [(small(unseen) - network(unseen)).square().mean().item() for small in (refit, both)]
    assert errors[1] < 0.9 * errors[0]
    again = paramtrans.translate(network, ratio=0.25, calibrate=sentences, then=matching)
    assert all(torch.equal(t, again.state_dict()[name]) for name, t in both.state_dict().items())


class Attention(nn.Module):
    """Its code goes by the layers' sizes, or `fixed` by a number of heads."""

    def __init__(self, fixed: bool = False) -> None:
        super().__init__()
        self.head_dim, self.heads = 3, 4 if fixed else -1
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(6, 12) for _ in range(3))
        self.out_proj = nn.Linear(12, 6)

    def forward(self, x: Tensor) -> Tensor:
        projections = (self.q_proj, self.k_proj, self.v_proj)
        q, k, v = (layer(x).unflatten(-1, (self.heads, self.head_dim)).transpose(-3, -2) for layer in projections)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        summed: Tensor = x + self.out_proj(mixed.transpose(-3, -2).flatten(-2))
        return summed


@pytest.mark.parametrize("translator", ["refit", "prune"])
def test_unimportant_heads_go_whole(translator: str) -> None:
    torch.manual_seed(0)
    network = Attention().eval()
    for layer in (network.q_proj, network.k_proj, network.v_proj):
        layer.weight.data.normal_()
    network.out_proj.weight.data[:, 3:6] = network.out_proj.weight.data[:, 9:] = 0  # the second and the last head
    inputs = torch.randn(40, 5, 6)
    small = paramtrans.translate(network, translator, ratio=0.5, calibrate=inputs.split(10))
    assert small.q_proj.out_features == small.out_proj.in_features == 6
    torch.testing.assert_close(small.k_proj.weight, network.k_proj.weight[[0, 1, 2, 6, 7, 8]])
    torch.testing.assert_close(small(inputs), network(inputs), rtol=1e-3, atol=1e-3)


def test_code_that_goes_by_a_number_of_heads_gets_a_smaller_one() -> None:
    network = nn.Sequential(Attention(), Attention(fixed=True)).eval()
    small = paramtrans.translate(network, "prune", calibrate=torch.randn(8, 5, 6))
    assert [attention.q_proj.out_features for attention in small] == [6, 6]
    assert [attention.heads for attention in small] == [-1, 2]


def test_pruning_blocks_needs_no_inputs_and_a_ratio_may_depend_on_the_path(network: nn.Module) -> None:
    small = paramtrans.translate(network, "prune", ratio={"1": 0.25, "2": 0.5})
    assert (small[1].conv1.out_channels, small[2].conv1.out_channels, small[5].out_features) == (2, 4, 16)
    assert all(block.feature_error is None for block in small.paramtrans_blocks)


def summed(block: nn.Module, x: Tensor) -> Tensor:
    """What a block's branch and its input are together, before the last ReLU."""
    hidden = torch.relu(block.bn1(block.conv1(x)))  # type: ignore[operator]
    return x + block.bn2(block.conv2(hidden))  # type: ignore[operator]


def test_a_feature_error_is_of_sums_against_their_variance_and_a_large_one_is_warned_of(
    network: nn.Module, images: Tensor, caplog: pytest.LogCaptureFixture
) -> None:
    torch.manual_seed(3)
    for block in (network[1], network[2]):
        block.conv1.weight.data.normal_()
    small = paramtrans.translate(network, "prune", ratio=0.125, calibrate=images.split(10), blocks="1,2")
    with torch.no_grad():
        for number, block in enumerate(small.paramtrans_blocks, 1):
            wanted, smaller = (summed(model[number], model[:number](images)) for model in (network, small))
            error = (smaller - wanted).square().mean() / wanted.var((0, 2, 3), correction=0).mean()
            assert block.feature_error == pytest.approx(error.item(), rel=1e-3)
        left = network(images)
        error = (small(images) - left).square().mean() / left.var(0, correction=0).mean()
        assert measure_losses(network, small, images.split(10)).outputs[""] == pytest.approx(error.item(), rel=1e-3)
    bad = [block.path for block in small.paramtrans_blocks if block.feature_error > BAD]
    warned = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert bad and [re.findall('"(.*?)"', message) for message in warned] == [bad]
    assert "predicted to come out badly" in caplog.text


def test_a_budget_is_kept_and_used(network: nn.Module, images: Tensor) -> None:
    whole = sum(p.numel() for p in network.parameters())
    small = paramtrans.translate(network, "prune", widths=Budget(whole // 2), calibrate=images)
    assert 0.4 * whole < sum(p.numel() for p in small.parameters()) <= whole // 2
    with pytest.raises(SpecMismatch, match="cannot be made of this one"):
        paramtrans.translate(network, "prune", widths=Budget(10), calibrate=images)


def test_what_cannot_be_done_is_refused(network: nn.Module, images: Tensor) -> None:
    for problem, arguments in {
        'no block has a path that matches "layer9"': {"blocks": "layer9", "by": "blocks"},
        'no group of units has a path that matches "layer9"': {"blocks": "layer9"},
        "has to be trained first": {"translator": "mixer"},
        "no share of the hidden units": {"ratio": 1.5},
        "looks at what blocks compute": {"calibrate": ()},
        "probes of one size": {"then": {"matching": {}}, "calibrate": [images, images[..., :7, :7]], "by": "blocks"},
    }.items():
        with pytest.raises(SpecMismatch, match=problem):
            paramtrans.translate(network, **{"calibrate": [images], **arguments})


def test_features_wait_in_files_beyond_the_limit(network: nn.Module, images: Tensor) -> None:
    spool = Spool(limit=images[:10].nbytes)
    for piece in images.split(10):
        spool.add(piece)
    assert torch.equal(torch.cat(list(spool)), images) and torch.equal(torch.cat(list(spool)), images)
    kept = entering(network, "1.conv1", images.split(10))
    [first, *_] = NetworkContext(reached=kept, original=kept).entering()
    torch.testing.assert_close(first.reached[0], network[0](images[:10]))


def shell(capsys: pytest.CaptureFixture[str], *arguments: Any) -> tuple[int, str, str]:
    status = main([str(argument) for argument in arguments])
    out = capsys.readouterr()
    return status, out.out, out.err


def test_from_the_shell_and_back(
    network: nn.Module, nets: Path, images: Tensor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, data, output = tmp_path / "model.safetensors", tmp_path / "images.npy", tmp_path / "small.safetensors"
    save_file(network.state_dict(), model)
    numpy.save(data, images.numpy())
    status, out, _ = shell(capsys, "inspect", model, "--arch", f"{nets}:small", "--calibrate", data, "--json")
    seen = json.loads(out)
    assert status == 0 and [(b["path"], b["hidden"]) for b in seen["blocks"] if not b["refused"]] == [
        ("1", [8]),
        ("2", [8]),
        ("5", [16]),
    ]
    arguments = ("translate", model, "--arch", f"{nets}:small", "--calibrate", data, "-o", output, "--json")
    status, out, err = shell(capsys, *arguments)
    result = json.loads(out)
    assert status == 0 and result["after"]["parameters"] < result["before"]["parameters"], err
    assert (
        result["after"]["flops"] < result["before"]["flops"]
        and "translating 3 groups of units, by 3 layers: 0/3" in err
    )
    assert [block["hidden"] for block in result["blocks"]] == [[[8], [4]], [[8], [4]], [[16], [8]]]
    assert all(block["feature_error"] < 1e-3 for block in result["blocks"]) and result["output_error"] < 1e-3
    small = paramtrans.load_translated(output, f"{nets}:small")
    assert [b.feature_error for b in small.paramtrans_blocks] == [b["feature_error"] for b in result["blocks"]]
    torch.testing.assert_close(small(images), network(images), rtol=1e-2, atol=1e-3)
    with pytest.raises(StoreError, match=r"load_translated\(path, network\); no file named here is ever run"):
        paramtrans.load_translated(output)


def test_options_of_translators_that_go_on_from_the_shell(
    network: nn.Module, nets: Path, images: Tensor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, data, output = tmp_path / "model.safetensors", tmp_path / "images.npy", tmp_path / "small.safetensors"
    save_file(network.state_dict(), model)
    numpy.save(data, images.numpy())
    arguments = ("translate", model, "--arch", f"{nets}:small", "--blocks", "1,2", "--calibrate", data, "-o", output)
    arguments += ("--ratio", 0.25, "--option", "units=norm", "--option", "matching.steps=5", "--json")
    status, _, err = shell(capsys, *arguments)
    assert status == 2 and "matching is none of the translators that --then names" in err and not output.exists()
    status, _, err = shell(capsys, *arguments, "--then", "matching")
    assert status == 0, err
    options: Any = {"options": {"units": "norm"}, "then": {"matching": {"steps": 5}}}
    wanted = paramtrans.translate(network, blocks="1,2", ratio=0.25, calibrate=[images], **options)
    small = paramtrans.load_translated(output, f"{nets}:small")
    torch.testing.assert_close(small(images), wanted(images), rtol=1e-3, atol=1e-4)


def test_made_up_inputs_from_the_shell(
    network: nn.Module, nets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, output = tmp_path / "model.safetensors", tmp_path / "small.safetensors"
    save_file(network.state_dict(), model)
    start = ("translate", model, "--arch", f"{nets}:small", "--blocks", "1,2", "-o", output)
    for flags, problem in {
        ("--probes", "smooth"): "--probes NAME and --input SHAPE go together",
        ("--input", "3,9,9"): "--probes NAME and --input SHAPE go together",
        ("--input", "3,9,9", "--probes", "smooth", "--calibrate", model): "in the place of --calibrate",
        ("--input", "3x9", "--probes", "smooth"): "expected the shape of one input, such as 3,224,224",
        ("--input", "1,9,9", "--probes", "smooth"): "the network does not take the inputs",
        ("--input", "3,9999999,9999999", "--probes", "smooth"): "not enough memory",
        ("--input", "3,9,9", "--probes", "smoth"): 'did you mean "smooth"?',
        ("--option", "smooth.count=3"): "smooth is none of the translators that --then names, nor the probes",
        (): "synthetic ones (draw_probes, or --probes)",
    }.items():
        status, _, err = shell(capsys, *start, *flags)
        assert status == 2 and problem in err and not output.exists(), flags
    made_up = ("--probes", "bn_statistics", "--input", "3,9,9", "--option", "bn_statistics.steps=5")
    status, out, err = shell(capsys, *start, *made_up)
    assert status == 0 and "errors are those on synthetic inputs" in out, err
    inputs = paramtrans.draw_probes(network, (3, 9, 9), "bn_statistics", steps=5)
    wanted = paramtrans.translate(network, blocks="1,2", calibrate=inputs.split(32))
    small = paramtrans.load_translated(output, f"{nets}:small")
    torch.testing.assert_close(small(inputs), wanted(inputs), rtol=1e-3, atol=1e-4)


def test_budgets_from_the_shell(
    network: nn.Module, nets: Path, images: Tensor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, data, output = tmp_path / "model.safetensors", tmp_path / "images.npy", tmp_path / "small.safetensors"
    save_file(network.state_dict(), model)
    numpy.save(data, images.numpy())
    start = (
        "translate",
        model,
        "--arch",
        f"{nets}:small",
        "--calibrate",
        data,
        "-o",
        output,
        "--with",
        "prune",
        "--json",
    )
    for flags, problem in {
        ("--flops", 9, "--parameters", 9): "give one of them",
        ("--measured",): "give --parameters",
        ("--flops", 9): "a network of 9 operations cannot be made",
    }.items():
        status, _, err = shell(capsys, *start, *flags)
        assert status == 2 and problem in err and not output.exists()
    for flags in (("--flops", 200_000), ("--parameters", 2000), ("--parameters", 2000, "--measured")):
        status, out, err = shell(capsys, *start, *flags)
        assert status == 0, err
        assert json.loads(out)["after"][flags[0].removeprefix("--")] <= flags[1]


class Hostile:
    def __reduce__(self) -> Any:
        return (exec, ("raise SystemExit('a checkpoint was run')",))


def test_a_hostile_checkpoint_is_refused_and_nothing_is_written(
    nets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain, torchs, output = tmp_path / "plain.pt", tmp_path / "torch.pth", tmp_path / "small.safetensors"
    plain.write_bytes(pickle.dumps({"weight": Hostile()}))
    torch.save({"weight": Hostile()}, torchs)
    for model in (plain, torchs):
        status, _, err = shell(capsys, "translate", model, "--arch", f"{nets}:small", "-o", output)
        assert status == 2 and "other objects are refused" in err and len(err.splitlines()) <= 2
    assert not output.exists()


@pytest.mark.parametrize(
    ("architecture", "problem"),
    [
        ("resnet18", "expected torchvision:NAME, export:FILE.pt2, hf:FOLDER, task:TASK:BLOCK, timm:NAME or FILE.py:"),
        ("torchvision:resnet1", "has no 'resnet1'; did you mean \"resnet18\"?"),
        ("missing.py:small", "no such Python file"),
        ("NETS:nothing", "has no function 'nothing'"),
        ("NETS:small?classes=x", "TypeError"),
        ("NETS:small?classes=5", "does not fit the architecture"),
    ],
)
def test_a_wrong_architecture_is_named(
    architecture: str, problem: str, network: nn.Module, nets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    wanted = architecture.replace("NETS", str(nets))
    status, _, err = shell(capsys, "inspect", tmp_path / "model.safetensors", "--arch", wanted)
    assert status == 2 and problem in err and "Traceback" not in err


def test_what_a_file_of_an_architecture_cannot_import_is_told(
    network: nn.Module, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "two.py").write_text("import no_such_layers\n")
    status, _, err = shell(capsys, "inspect", tmp_path / "model.safetensors", "--arch", f"{tmp_path / 'two.py'}:small")
    assert status == 2 and "No module named 'no_such_layers'; put the folder that it is in on PYTHONPATH" in err


def test_a_damaged_or_foreign_record_is_refused(network: nn.Module, nets: Path, tmp_path: Path) -> None:
    small = paramtrans.translate(network, "prune")
    path = tmp_path / "small.safetensors"
    paramtrans.save_translated(small, path, f"{nets}:small")
    record = Path(f"{path}.json")
    record.write_text(record.read_text().replace('"basic_block"', '"conv"'))
    with pytest.raises(StoreError, match="checksum"):
        paramtrans.load_translated(path, f"{nets}:small")
    with pytest.raises(StoreError, match=r"not made by paramtrans\.translate"):
        paramtrans.save_translated(network, path)


def test_widths_and_units_from_the_shell(
    network: nn.Module, nets: Path, images: Tensor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, data, output = tmp_path / "model.safetensors", tmp_path / "images.npy", tmp_path / "small.safetensors"
    save_file(network.state_dict(), model)
    numpy.save(data, images.numpy())
    given = (model, "--arch", f"{nets}:small", "--calibrate", data, "--by", "units", "--json")
    status, out, err = shell(capsys, "inspect", *given)
    seen = json.loads(out)
    assert status == 0, err
    assert {"merge", "prune", "refit"} <= {*seen["translators"]} and {"matching", "quantise"} <= {*seen["then"]}
    assert not {"low_rank", "quantise"} & {*seen["translators"]}
    assert all(row["flops"] > 0 and row["tensors"] for row in seen["blocks"])
    free = {name for row in seen["blocks"] if not row["refused"] for name in row["tensors"]}
    rest = sum(p.numel() for name, p in network.named_parameters() if name not in free)
    assert sum(seen["stays"].values()) == rest and "the network's output" in seen["stays"]
    flags = ("--multiple-of", 4, "--least", 4, "--ratio", 0.3, "--then", "quantise", "--option", "quantise.bits=4")
    status, out, err = shell(capsys, "translate", *given, *flags, "-o", output)
    assert status == 0, err
    blocks = json.loads(out)["blocks"]
    assert blocks and all(after % 4 == 0 for block in blocks for after in block["hidden"][1])
    lost = []
    for finish in ((), ("--finish", 20, "--option", "finish.batch=16")):
        status, out, err = shell(capsys, "translate", *given, "--with", "prune", *finish, "-o", output, "--force")
        assert status == 0, err
        lost.append(json.loads(out)["output_error"])
    assert lost[1] < lost[0]
    for wrong, problem in (
        (("--finish", 20, "--option", "finish.rate=1"), "finish: rate"),
        (("--option", "finish.lr=1"), "--finish"),
        (("--latency", 5, "--flops", 5), "give one of them"),
        (("--multiple-of", 0), "multiple-of"),
        (("--with", "low_rank"), "low_rank writes blocks"),
    ):
        status, _, err = shell(capsys, "translate", *given, *wrong, "-o", output, "--force")
        assert status == 2 and problem in err
    status, _, err = shell(capsys, "inspect", model, "--arch", f"{nets}:small", "--by", "units")
    assert status == 2 and "--calibrate" in err


def test_a_network_without_blocks_is_said_to_have_units(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = "from torch import nn\n\n\ndef lone():\n    return nn.Bilinear(4, 4, 2)\n"
    (tmp_path / "lone.py").write_text(code)
    save_file(nn.Bilinear(4, 4, 2).state_dict(), tmp_path / "lone.safetensors")
    given = ("inspect", tmp_path / "lone.safetensors", "--arch", f"{tmp_path / 'lone.py'}:lone")
    status, out, err = shell(capsys, *given)
    assert status == 0 and "no adapter recognises a block" in out and "--calibrate DATA shows units" in out, err
