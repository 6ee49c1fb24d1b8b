"""Parts of networks that become blocks of another architecture: found, fitted, put in their place, kept on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

import paramtrans
from paramtrans import BlockAdapter, Component, SpecMismatch, components, hookimpl
from paramtrans.cli.inspect_parts import show_parts
from paramtrans.errors import DataError, StoreError
from paramtrans.networks.forward.examples import Examples
from paramtrans.networks.parts.finding import find_parts
from paramtrans.networks.parts.fits import part_fits
from paramtrans.networks.parts.fitting import Fitting, fit
from paramtrans.networks.parts.placed import Placed
from paramtrans.networks.parts.replacing import ReplacedPart
from paramtrans.ops.distances import streamed_error
from paramtrans.plugins import Plugins
from paramtrans.plugins.registry import Provider

QUICK = {"steps": 8, "batch": 8}


class Attention(nn.Module):
    """As libraries write it: features by name, a mask beside them, and a tuple back."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(6, 6)

    def forward(self, hidden_states: Tensor, mask: Tensor | None = None) -> tuple[Tensor, None]:
        return self.inner(hidden_states).tanh(), None


class Written(nn.Module):
    """A network with a convolutional part, one that is passed twice, and one that gives a tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.block = BasicBlock(6, 6)
        self.twice = nn.Conv2d(6, 6, 1)
        self.attention = Attention()

    def forward(self, images: Tensor) -> Tensor:
        features = self.twice(self.twice(self.block(self.stem(images))))
        tokens = features.flatten(2).mT
        mixed, _ = self.attention(hidden_states=tokens, mask=torch.ones(3))
        return mixed.mean(1)


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    made = Written().eval()
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(), module.running_var.uniform_(0.5, 2)
    return made


@pytest.fixture
def images() -> Tensor:
    return torch.randn(24, 3, 6, 6, generator=torch.Generator().manual_seed(1))


def test_parts_are_found_by_how_they_are_called(network: nn.Module, images: Tensor) -> None:
    parts, refused = find_parts(network, ["block", "attention", "twice"], images)
    assert [(part.part.path, part.calling.alone, part.calling.beside) for part in parts] == [
        ("block", True, None),
        ("attention", False, 1),
    ]
    assert parts[0].part.run is not None
    assert torch.equal(parts[0].part.run(parts[0].part.entering), parts[0].part.leaving)
    assert refused == {"twice": "it is passed 2 times in a run of the network, not once"}


def test_a_pattern_takes_the_outermost_modules(network: nn.Module, images: Tensor) -> None:
    parts, _ = find_parts(network, ["block*"], images)
    assert [part.part.path for part in parts] == ["block"]


def test_blocks_of_another_architecture_come_closer_and_keep_the_rest(network: nn.Module, images: Tensor) -> None:
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    to = {"block": "depthwise_separable", "attention": "linear_chain?hidden=[4]&skip=none"}
    small = paramtrans.translate(network, to=to, options={"steps": 60, "batch": 8}, calibrate=images.split(8))
    conv, attention = small.paramtrans_blocks
    assert isinstance(small.attention, Placed)  # its network calls it with a mask, and takes a tuple
    assert (conv.kind, conv.target_kind, conv.started) == ("BasicBlock", "depthwise_separable", "closed form")
    assert (attention.kind, attention.started) == ("Attention", "random")
    assert attention.feature_error < attention.start_error / 2
    assert conv.feature_error <= conv.start_error
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert torch.equal(small.stem.weight, network.stem.weight)
    assert small(images).shape == network(images).shape


def test_a_network_with_other_parts_is_kept_and_comes_back(network: nn.Module, images: Tensor, tmp_path: Path) -> None:
    to = {"block": "bottleneck", "attention": "linear_chain?hidden=[4]&skip=none"}
    small = paramtrans.translate(network, to=to, options=QUICK, calibrate=images)
    paramtrans.save_translated(small, tmp_path / "small.safetensors")
    again = paramtrans.load_translated(tmp_path / "small.safetensors", Written())
    assert torch.equal(again(images), small(images))
    assert again.paramtrans_blocks == small.paramtrans_blocks
    assert all(isinstance(block, ReplacedPart) for block in again.paramtrans_blocks)


def test_a_record_cannot_ask_for_a_block_larger_than_its_file(
    network: nn.Module, images: Tensor, tmp_path: Path
) -> None:
    small = paramtrans.translate(network, to={"block": "bottleneck"}, options=QUICK, calibrate=images)
    path = tmp_path / "small.safetensors"
    paramtrans.save_translated(small, path)
    record = json.loads((tmp_path / "small.safetensors.json").read_text())
    record["blocks"][0]["target"]["hidden"] = [50_000_000, 50_000_000]
    (tmp_path / "small.safetensors.json").write_text(json.dumps(record))
    with pytest.raises(StoreError, match=r"small\.safetensors"):
        paramtrans.load_translated(path, Written())


def test_a_ratio_is_the_share_of_the_parts_parameters(network: nn.Module, images: Tensor) -> None:
    small = paramtrans.translate(network, to={"block": "bottleneck"}, ratio=0.2, options=QUICK, calibrate=images)
    [block] = small.paramtrans_blocks
    assert block.parameters[1] <= 0.2 * block.parameters[0] < block.parameters[1] + 60
    with pytest.raises(SpecMismatch, match="the smallest such block has"):
        paramtrans.translate(network, to={"block": "bottleneck"}, ratio=0.001, options=QUICK, calibrate=images)


@pytest.mark.parametrize("names", [("block",), ("block", "attention")])
def test_the_network_passes_no_more_often_for_more_parts(
    network: nn.Module, images: Tensor, names: tuple[str, ...]
) -> None:
    """One pass of the untouched network and one of the smaller, which goes on with the blocks; the rest looks first."""
    passed: list[int] = []
    network.stem.register_forward_hook(lambda module, args, output: passed.append(len(output)))
    to = {"block": "bottleneck", "attention": "linear_map"}
    paramtrans.translate(network, to={name: to[name] for name in names}, calibrate=images.split(8), options=QUICK)
    assert sum(passed) <= 3 * len(images) + 8
    assert not any("forward" in vars(module) for module in network.modules())


def test_a_block_sees_what_those_before_it_give(network: nn.Module, images: Tensor) -> None:
    """What reaches the last part in the result is what its block was fitted to: the error said is that measured so."""
    reached: list[Tensor] = []
    small = paramtrans.translate(
        network, to={"block": "bottleneck", "attention": "linear_map"}, calibrate=images, options=QUICK
    )
    small.attention.register_forward_hook(lambda module, args, output: reached.append(output[0]))
    wanted: list[Tensor] = []
    network.attention.register_forward_hook(lambda module, args, output: wanted.append(output[0]))
    with torch.no_grad():
        small(images), network(images)
    record = small.paramtrans_blocks[1]  # type: ignore[index]
    judged = torch.arange(len(images)) % 4 == 3  # of few inputs
    difference = (reached[0] - wanted[0]).square()[judged].mean() / wanted[0].var((0, 1), correction=0).mean()
    assert record.feature_error == pytest.approx(float(difference), rel=0.05)


def test_batches_that_do_not_reach_a_part_are_named() -> None:
    class Sometimes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.part = nn.Sequential(nn.Linear(4, 4), nn.ReLU())

        def forward(self, features: Tensor) -> Tensor:
            return self.part(features) if features.mean() > 0 else features

    inputs = torch.rand(24, 4)
    with pytest.raises(SpecMismatch, match="part is not reached by every calibration batch"):
        paramtrans.translate(Sometimes().eval(), to={"part": "linear_map"}, calibrate=[inputs, -inputs], options=QUICK)


class Halving(BlockAdapter):
    """A strangers' block of a few lines."""

    def module(self) -> nn.Module:
        channels = self.options.channels
        return nn.Sequential(nn.Conv2d(channels, channels // 2, 1), nn.ReLU(), nn.Conv2d(channels // 2, channels, 1))


class Stranger:
    """A plugin that announces it."""

    @hookimpl
    def paramtrans_block_adapters(self) -> list[Component]:
        return [Component("halving", "of mine", f"{__name__}:Halving")]


def test_a_block_of_a_strangers_takes_a_place_without_more_than_its_module(network: nn.Module, images: Tensor) -> None:
    plugins = Plugins()
    plugins.register(Stranger(), Provider("acme", "1"))
    small = paramtrans.translate(
        network, to={"block": "halving"}, options=QUICK, calibrate=images, registry=plugins.registry()
    )
    assert isinstance(small.block, nn.Sequential)
    assert small.paramtrans_blocks[0].target_kind == "halving"


@pytest.mark.parametrize(
    ("to", "more", "said"),
    [
        ({"nothing.*": "bottleneck"}, {}, 'no module has a path that matches "nothing.*"'),
        ({"twice": "bottleneck"}, {}, "twice: it is passed 2 times"),
        ({"attention": "bottleneck"}, {}, "attention: bottleneck cannot take its place: it makes"),
        ({"stem": "basic_block?hidden=2"}, {}, r"stem: basic_block makes \[2, 3, 6, 6\] of \[2, 3, 6, 6\], not"),
        (
            {"block": "bottleneck?depth=2"},
            {},
            r"block: bottleneck cannot take its place: .*depth: unknown option[^()]*$",
        ),
        (
            {"attention": "grouped_query"},
            {},
            r"(?s)attention: grouped_query .*heads.*what this .* computes does not say.*grouped_query\?heads=VALUE",
        ),
        ({"block": "bottleneck"}, {"widths": lambda *_: {}}, "goes with ratio"),
        ({"block": "bottleneck"}, {"options": {"stops": 3}}, "stops"),
    ],
)
def test_what_cannot_be_is_said(
    network: nn.Module, images: Tensor, to: dict[str, str], more: dict[str, Any], said: str
) -> None:
    with pytest.raises(paramtrans.ParamtransError, match=said):
        paramtrans.translate(network, to=to, calibrate=images, **more)


def test_a_pattern_behind_a_wider_one_is_told_to_go_first(network: nn.Module, images: Tensor) -> None:
    with pytest.raises(SpecMismatch, match=r'all that "block.conv1" matches, .*name the narrower pattern first'):
        paramtrans.translate(network, to={"block*": "bottleneck", "block.conv1": "conv_chain"}, calibrate=images)


def test_parts_are_fitted_to_inputs(network: nn.Module) -> None:
    with pytest.raises((SpecMismatch, DataError), match="give a few dozen unlabelled inputs"):
        paramtrans.translate(network, to={"block": "bottleneck"})


def test_a_fit_ends_by_examples_that_no_step_saw_and_reports_on_others() -> None:
    torch.manual_seed(0)
    inputs, weight = torch.randn(40, 5), nn.Parameter(torch.zeros(5), requires_grad=False)
    wanted = inputs @ torch.arange(5.0)
    stepped, judged, looks = set[int](), set[int](), list[int]()

    def loss_of(number: int, examples: Tensor) -> Tensor:
        at = 20 * number + examples
        if torch.is_grad_enabled():
            stepped.update(at.tolist())
        else:
            judged.update(at.tolist())
            looks.extend(at.tolist())
        return (inputs[at] @ weight - wanted[at]).square().mean()

    examples = Examples([inputs[:20], inputs[20:]])
    fitted = fit([weight], loss_of, examples, Fitting(200, 30.0, 8, 0))
    assert fitted.after < fitted.before / 10
    reported = {7, 15, 23, 31, 39}
    assert all(looks.count(number) == 2 for number in reported)  # before the first step, and at the end
    judges = judged - reported
    assert len(judges) == 4 and not judges & stepped and stepped | judges | reported == {*range(40)}
    assert not weight.requires_grad and weight.grad is None
    wild = weight.clone()
    again = fit([weight], loss_of, examples, Fitting(40, 1e6, 8, 0))
    assert again.steps > 0 or (torch.equal(weight, wild) and again.after == again.before)


def test_what_fits_is_told_beforehand_with_what_it_costs(network: nn.Module, images: Tensor) -> None:
    fits = {fit.path: fit for fit in part_fits(network, "depthwise_separable", "*", [images], components())[0]}
    assert fits.keys() == {"stem", "block", "block.conv1", "block.conv2"}
    assert (fits["stem"].kind, fits["stem"].parameters) == ("Conv2d", (3 * 6 * 9 + 6, 3 * 9 + 3 * 6 + 6))
    assert fits["stem"].flops == (2 * 36 * 3 * 6 * 9, 2 * 36 * (3 * 9 + 3 * 6))
    small = paramtrans.translate(
        network, to={"block": "depthwise_separable"}, options={"steps": 0}, calibrate=images[::2]
    )
    entering = network.stem(images[1::2])
    with torch.no_grad():
        error = streamed_error([(small.block(entering), network.block(entering))])
    assert fits["block"].started == "closed form" and fits["block"].error == pytest.approx(error, rel=1e-4)
    assert {fit.path for fit in part_fits(network, "bottleneck", "*", [images], components())[0]} == {"block"}


def test_a_block_without_a_closed_form_is_judged_behind_a_few_steps(network: nn.Module, images: Tensor) -> None:
    [fit], _ = part_fits(network, "linear_chain?hidden=[2]&skip=none", "attention", [images], components())
    [single], _ = part_fits(network, "linear_chain?hidden=[2]&skip=none", "attention", [images[:1]], components())
    assert fit.started == single.started == "random" and fit.error < 1.1  # 700 without


def test_where_no_part_fits_the_reasons_are_told(
    network: nn.Module, images: Tensor, capsys: pytest.CaptureFixture[str]
) -> None:
    fits, refused = part_fits(network, "bottleneck", "block.*", [images], components())
    assert fits == [] and refused.keys() >= {"block.conv1", "block.conv2"}
    show_parts(network, "bottleneck", "block.*", [images], components(), as_json=False)
    said = capsys.readouterr().out
    assert said.startswith("0 parts") and refused["block.conv1"] in said and "block.conv1" in said


class Cache:
    """What libraries keep earlier positions in, as much as a block needs of it."""

    def __init__(self) -> None:
        self.kept: dict[int, tuple[Tensor, Tensor]] = {}

    def update(self, first: Tensor, second: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        if layer in self.kept:
            first, second = (torch.cat(pair, dim=-2) for pair in zip(self.kept[layer], (first, second), strict=True))
        self.kept[layer] = first, second
        return first, second

    def get_seq_length(self, layer: int = 0) -> int:
        return self.kept[layer][0].shape[-2] if layer in self.kept else 0


class Means(nn.Module):
    """Each position becomes the mean of those up to it, which it keeps in a cache if there is one."""

    def __init__(self) -> None:
        super().__init__()
        self.value = nn.Linear(6, 6)

    def forward(self, x: Tensor, cache: Cache | None = None, mask: Tensor | None = None) -> Tensor:
        values = self.value(x)[:, None]
        every = values if cache is None else cache.update(values, values[..., :0], 5)[0]
        counts = torch.arange(1, every.shape[-2] + 1)[:, None]
        return (every.cumsum(-2) / counts)[:, 0, -x.shape[1] :]


class Decoder(nn.Module):
    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def forward(self, x: Tensor, cache: Cache | None = None, mask: Tensor | None = None) -> Tensor:
        features: Tensor = self.part(x, cache=Cache() if cache is None else cache, mask=mask)
        return features


def test_a_block_that_knows_no_cache_has_its_features_kept_there() -> None:
    torch.manual_seed(0)
    inputs = torch.randn(4, 7, 6)
    [part], _ = find_parts(Decoder(Means()).eval(), ["part"], inputs)
    assert (part.calling.cache, part.calling.tensors) == (5, ())
    network = Decoder(Means())
    part.put(network, _Summed())
    cache = Cache()
    with torch.no_grad():
        pieces = torch.cat([network(piece, cache) for piece in inputs.split([4, 1, 2], dim=1)], dim=1)
        assert torch.equal(pieces, network(inputs))
    assert cache.kept.keys() == {5} and torch.equal(cache.kept[5][0][:, 0], inputs)


class _Summed(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.cumsum(1)


def test_a_mask_that_was_not_there_is_refused_as_is_a_cache_that_holds_other_positions() -> None:
    torch.manual_seed(0)
    inputs = torch.randn(4, 7, 6)
    [part], _ = find_parts(Decoder(Means()).eval(), ["part"], inputs)
    network = Decoder(Means())
    part.put(network, _Summed())
    with pytest.raises(SpecMismatch, match=r"_Summed: is called with mask.*without padding"):
        network(inputs, mask=torch.ones(4, 7, dtype=torch.bool))
    network(inputs, mask=torch.ones(4, 7, dtype=torch.long))  # numbers of something, no mask

    class Full(Cache):
        def get_seq_length(self, layer: int = 0) -> int:
            return 3

    with pytest.raises(SpecMismatch, match=r"Full: does not hold all positions.*use_cache=False"):
        network(inputs, Full())
