"""Residual streams of a smaller width: what norms are then computed over, what is solved for, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

import paramtrans
from paramtrans.cli.main import main
from paramtrans.errors import SpecMismatch
from paramtrans.networks.graph.groups import analyse, prove_groups

TOKENS = torch.randn(64, 5, 3, generator=torch.Generator().manual_seed(0))


class WrittenOut(nn.RMSNorm):
    """RMSNorm as language models write it."""

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


class Shaped(nn.Module):
    """LayerNorm by a function, whose shape the code remembers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.shape = (width,)

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.shape)


class Deviation(nn.Module):
    """A norm of mean and variance, written out."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(width) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        variance, mean = torch.var_mean(x, -1, keepdim=True, correction=0)
        return self.weight * (x - mean) / (variance + 1e-5).sqrt()


NORMS: dict[str, Any] = {
    "layer norm": nn.LayerNorm,
    "layer norm without weights": lambda width: nn.LayerNorm(width, elementwise_affine=False),
    "layer norm by a function": Shaped,
    "mean and variance": Deviation,
    "rms norm": lambda width: nn.RMSNorm(width, eps=1e-6),
    "rms norm written out": lambda width: WrittenOut(width, eps=1e-6),
    "length": lambda width: Unit(),
}


class Unit(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=-1)


class Branch(nn.Module):
    """A residual branch, with its norm in front of it or behind the sum."""

    def __init__(self, norm: nn.Module, width: int = 12, post: bool = False) -> None:
        super().__init__()
        self.norm, self.up, self.down, self.post = norm, nn.Linear(width, 16), nn.Linear(16, width), post

    def forward(self, x: Tensor) -> Tensor:
        if self.post:
            return self.norm(x + self.down(F.gelu(self.up(x))))
        return x + self.down(F.gelu(self.up(self.norm(x))))


def network(norm: str = "layer norm", post: bool = False, width: int = 12) -> nn.Sequential:
    torch.manual_seed(0)
    branches = [Branch(NORMS[norm](width), width, post) for _ in range(3)]
    made = nn.Sequential(nn.Linear(3, width), *branches, NORMS[norm](width), nn.Linear(width, 4)).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(2) if parameter.ndim > 1 else parameter.add_(torch.rand_like(parameter))
    return made


def error(small: nn.Module, whole: nn.Module, inputs: Tensor = TOKENS) -> float:
    with torch.no_grad():
        expected = whole(inputs)
        return float((small(inputs) - expected).square().sum() / (expected - expected.mean()).square().sum())


QUICK = [("layer norm", True), ("rms norm written out", False), ("layer norm by a function", False)]
REST = [
    pytest.param(norm, post, marks=pytest.mark.thorough)
    for norm in NORMS
    for post in (False, True)
    if (norm, post) not in QUICK
]


@pytest.mark.parametrize(("norm", "post"), [*QUICK, *REST])
def test_a_norm_is_computed_over_the_units_that_stay(norm: str, post: bool) -> None:
    whole = network(norm, post)
    small = paramtrans.translate(whole, "prune", stream=0.5, calibrate=TOKENS)
    [record] = small.paramtrans_blocks
    assert (record.kind, record.units) == ("stream", (12, 6))
    assert small[0].weight.shape == (6, 3) and small[1].up.weight.shape == (16, 6)
    # The same by hand: rows and columns of the same units, and norms of that width.
    staying = [i for i in range(12) if any(torch.equal(whole[0].weight[i], row) for row in small[0].weight)]
    by_hand = network(norm, post, 6)
    for (name, parameter), theirs in zip(by_hand.named_parameters(), whole.parameters(), strict=True):
        for axis, size in enumerate(parameter.shape):
            theirs = theirs if size == theirs.shape[axis] else theirs.index_select(axis, torch.tensor(staying))
        parameter.data.copy_(theirs)
        assert torch.equal(parameter, small.get_parameter(name))
    assert torch.allclose(small(TOKENS), by_hand(TOKENS), atol=1e-5)


@pytest.mark.parametrize(("norm", "post"), [("layer norm", True), ("rms norm written out", False)])
def test_what_reads_and_writes_a_stream_makes_up_for_it(norm: str, post: bool) -> None:
    whole = network(norm, post)
    left_out = paramtrans.translate(whole, "prune", stream=0.75, calibrate=TOKENS)
    solved = paramtrans.translate(whole, "refit", stream=0.75, calibrate=TOKENS, options={"units": "norm"})
    assert torch.equal(left_out[0].bias, solved[0].bias), "not the same units"
    rows = [row for row in whole[1].down.weight if any(torch.equal(row, other) for other in left_out[1].down.weight)]
    assert len(rows) == 9 and not any(torch.equal(row, other) for row in rows for other in solved[1].down.weight)
    assert error(solved, whole) < 0.5 * error(left_out, whole)
    assert 0 < solved.paramtrans_blocks[0].feature_error < left_out.paramtrans_blocks[0].feature_error


@pytest.mark.thorough
def test_hidden_widths_stay_unless_they_are_asked_for() -> None:
    whole = network()
    alone = paramtrans.translate(whole, stream=0.5, calibrate=TOKENS)
    both = paramtrans.translate(whole, stream=0.5, ratio=0.25, calibrate=TOKENS)
    rounded = paramtrans.translate(whole, stream=0.5, widths=paramtrans.Ratio(1.0, multiple_of=4), calibrate=TOKENS)
    shapes = [[tuple(layer.weight.shape) for layer in (n[0], n[1].up, n[5])] for n in (alone, both, rounded)]
    assert shapes == [[(6, 3), (16, 6), (4, 6)], [(6, 3), (4, 6), (4, 6)], [(8, 3), (16, 8), (4, 8)]]
    without = paramtrans.translate(whole, ratio=0.25, calibrate=TOKENS)
    assert without[0].weight.shape == (12, 3) and without[1].up.weight.shape == (4, 12)


def test_a_budget_counts_what_the_stream_gives_up() -> None:
    whole = network()
    total = sum(parameter.numel() for parameter in whole.parameters())
    budget = paramtrans.Budget(total // 2)
    small = paramtrans.translate(whole, stream=0.75, widths=budget, calibrate=TOKENS)
    alone = paramtrans.translate(whole, widths=budget, calibrate=TOKENS)
    left = sum(parameter.numel() for parameter in small.parameters())
    assert 0.8 * (total // 2) < left <= total // 2
    assert small[1].up.out_features > alone[1].up.out_features and small[0].out_features == 9


def test_depth_goes_first_and_the_stream_afterwards() -> None:
    small = paramtrans.translate(network(), stream=0.5, depth=0.7, calibrate=TOKENS)
    assert len(small) == 5 and small[0].out_features == 6
    assert [type(record).__name__ for record in small.paramtrans_blocks] == ["LeftOut", "NarrowedGroup"]


class Tied(nn.Module):
    """An embedding that is also the last layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.branch = nn.Embedding(11, 12), Branch(nn.RMSNorm(12))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(self.branch(self.embed(x)), self.embed.weight)


def test_a_weight_that_an_embedding_shares_is_cut_and_not_solved_for() -> None:
    torch.manual_seed(0)
    whole, words = Tied().eval(), torch.randint(0, 11, (64, 5))
    small = paramtrans.translate(whole, stream=0.5, calibrate=words)
    staying = [i for i in range(12) if any(torch.equal(whole.embed.weight[:, i], c) for c in small.embed.weight.mT)]
    assert len(staying) == 6 and small.embed.embedding_dim == 6


def test_the_readers_of_pytorch_s_attention_are_seen() -> None:
    """Attention of one module hides its layers; the units that stay are chosen by what these read all the same."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(12, 2, 16, batch_first=True, dropout=0)
    whole = nn.Sequential(nn.Linear(12, 12), nn.TransformerEncoder(layer, 2), nn.Linear(12, 4)).eval()
    with torch.no_grad():  # two units that attention alone reads, and that no others say
        for block in whole[1].layers:
            block.linear1.weight[:, :2] = 0
            block.self_attn.in_proj_weight[:, :2] *= 10
        whole[2].weight[:, :2] = 0
    tokens = torch.randn(64, 5, 12)
    small = paramtrans.translate(whole, stream=0.5, calibrate=tokens)
    assert all(any(torch.equal(whole[0].weight[i], row) for row in small[0].weight) for i in range(2))
    assert small(tokens).shape == (64, 5, 4)


def test_a_smaller_stream_is_written_and_read_again(tmp_path: Path) -> None:
    whole = network("layer norm without weights")
    small = paramtrans.translate(whole, stream=0.5, ratio=0.5, calibrate=TOKENS)
    paramtrans.save_translated(small, tmp_path / "small.safetensors")
    again = paramtrans.load_translated(tmp_path / "small.safetensors", network("layer norm without weights"))
    assert torch.equal(again(TOKENS), small(TOKENS)) and again.paramtrans_blocks == small.paramtrans_blocks


def test_what_cannot_be_done_with_a_stream_is_said() -> None:
    whole = network()
    for arguments, reason in {
        "stream=1.5": "no share of a stream's width",
        "stream=True": "no share of a stream's width",
        "stream=0.5, by='blocks'": "leave out by",
        "stream=0.5, to={'1': 'linear_map'}": "goes with ratio",
        "stream=0.5, blocks='x'": 'no stream has a path that matches "x"; there are "0"',
        "stream=0.5, calibrate=()": "give inputs, with which",
    }.items():
        with pytest.raises(SpecMismatch, match=reason):
            eval(f"paramtrans.translate(whole, **{{'calibrate': TOKENS, **dict({arguments})}})")
    with pytest.raises(SpecMismatch, match="the network's output"):
        paramtrans.translate(whole[:4], stream=0.5, calibrate=TOKENS)
    with pytest.raises(SpecMismatch, match="no residual stream"):
        plain = nn.Sequential(nn.Linear(3, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 2)).eval()
        paramtrans.translate(plain, stream=0.5, calibrate=TOKENS)


# Networks of libraries ----------------------------------------------------------------------------------------------


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("architecture", "widths"),
    [
        ("timm:test_resnet?num_classes=5", [32]),
        pytest.param("torchvision:resnet18?num_classes=5", [64, 128, 256, 512], marks=pytest.mark.slow),
    ],
)
def test_streams_of_a_resnet_by_the_command(
    architecture: str, widths: list[int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip(architecture.partition(":")[0])
    torch.manual_seed(0)
    whole, images = paramtrans.networks.build(architecture).eval(), torch.randn(8, 3, 32, 32)
    save_file(whole.state_dict(), tmp_path / "whole.safetensors")
    save_file({"x": images}, tmp_path / "images.safetensors")
    named = [str(tmp_path / "whole.safetensors"), "--arch", architecture]
    data = ["--calibrate", str(tmp_path / "images.safetensors")]
    out = ["-o", str(tmp_path / "small.safetensors")]
    assert main(["translate", *named, "--with", "prune", "--stream", "0.75", *data, *out, "--quiet", "--json"]) == 0
    blocks = json.loads(capsys.readouterr().out)["blocks"]
    assert [block["hidden"] for block in blocks] == [[[width], [width * 3 // 4]] for width in widths]
    small = paramtrans.load_translated(tmp_path / "small.safetensors")
    assert small(images).shape == (8, 5) and small(images).isfinite().all()
    assert main(["inspect", *named, *data, "--by", "units", "--json"]) == 0
    groups = json.loads(capsys.readouterr().out)["blocks"]
    assert [group["hidden"] for group in groups if "--stream" in str(group["refused"])] == [[width] for width in widths]


def language_model(kind: str) -> nn.Module:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"vocab_size": 50, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    if kind == "llama":
        config = transformers.LlamaConfig(**sizes, num_attention_heads=4, num_key_value_heads=2)
        return transformers.LlamaForCausalLM(config).eval()
    if kind == "bert":
        return transformers.BertForMaskedLM(transformers.BertConfig(**sizes, num_attention_heads=4)).eval()
    config = transformers.GPT2Config(vocab_size=50, n_embd=32, n_layer=2, n_head=4, n_positions=16)
    return transformers.GPT2LMHeadModel(config).eval()


@pytest.mark.thorough
@pytest.mark.parametrize("kind", ["llama", "gpt2", "bert"])
def test_streams_of_language_models(kind: str, tmp_path: Path) -> None:
    whole, words = language_model(kind), torch.randint(0, 50, (40, 7), generator=torch.Generator().manual_seed(0))
    whole.save_pretrained(tmp_path / "given")
    save_file({"input_ids": words}, tmp_path / "words.safetensors")
    # The width of heads is the stream's, shared out, in all configs but Llama's: heads have to go in the same share.
    ratio = [] if kind == "llama" else ["--ratio", "0.75"]
    named = [str(tmp_path / "given"), "--arch", f"hf:{tmp_path / 'given'}", "--stream", "0.75", *ratio]
    out = ["-o", str(tmp_path / "small.safetensors"), "--stock", str(tmp_path / "stock"), "--quiet"]
    assert main(["translate", *named, "--calibrate", str(tmp_path / "words.safetensors"), *out]) == 0
    small = paramtrans.load_translated(tmp_path / "small.safetensors", f"hf:{tmp_path / 'given'}")
    stock = type(whole).from_pretrained(tmp_path / "stock").eval()
    assert stock.config.hidden_size == 24 and stock.get_input_embeddings().weight.shape == (50, 24)
    with torch.no_grad():
        assert torch.allclose(stock(words).logits, small(words).logits, atol=1e-5)
    if kind != "bert":
        assert small.generate(words[:1], max_new_tokens=3, do_sample=False).shape == (1, 10)


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["test_vit", "test_convnext", pytest.param("mixer_s32_224", marks=pytest.mark.slow)])
def test_streams_of_image_networks_are_proven(name: str) -> None:
    timm = pytest.importorskip("timm")
    whole = timm.create_model(name, num_classes=5).eval()
    images = torch.randn(2, *whole.default_cfg["input_size"])
    analysis = analyse(whole, ((images,), {}), stream=True)
    proven = prove_groups(analysis, {g: g.units.allowed(3 * len(g) // 4) for g in analysis.groups if g.stream})
    assert proven.counts and not proven.refused and proven.difference < 1e-4
