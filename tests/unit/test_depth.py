"""Whole blocks left out of networks where that costs the outputs least: which, and what follows."""

from __future__ import annotations

import json
from collections import OrderedDict
from functools import partial
from pathlib import Path
from types import MethodType

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

import paramtrans
from paramtrans import SpecMismatch
from paramtrans.errors import StoreError
from paramtrans.networks.depth.cheapest import cheapest, count_gone, some_examples, standing_in
from paramtrans.networks.depth.left_out import LeftOut, feature_errors
from paramtrans.networks.depth.repeated import repeated_blocks
from paramtrans.networks.parts.finding import find_parts
from paramtrans.networks.parts.placed import Calling, Placed
from paramtrans.ops.distances import streamed_error
from paramtrans.utils.progress import Reporter


class Residual(nn.Module):
    """A block that adds little or much to its features, and knows its number in the list."""

    def __init__(self, number: int, strength: float) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 6))
        self.number, self.strength = number, strength

    def forward(self, features: Tensor) -> Tensor:
        return features + self.strength * self.inner(features)


class Written(nn.Module):
    """A network that goes through its blocks one by one; `indexed`: by numbers that it keeps itself."""

    def __init__(self, strengths: tuple[float, ...] = (1.0, 0.01, 2.0, 0.0, 3.0), indexed: bool = False) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Residual(number, strength) for number, strength in enumerate(strengths))
        self.head = nn.Linear(6, 3)
        self.count, self.indexed = len(strengths), indexed

    def forward(self, features: Tensor) -> Tensor:
        for number in range(self.count if self.indexed else len(self.blocks)):
            features = self.blocks[number](features)
        return self.head(features)


@pytest.fixture
def network() -> Written:
    torch.manual_seed(0)
    return Written().eval()


@pytest.fixture
def inputs() -> Tensor:
    return torch.randn(40, 6, generator=torch.Generator().manual_seed(1))


def strengths(network: nn.Module) -> list[float]:
    return [block.strength for block in network.blocks]


def test_the_blocks_that_cost_least_are_left_out(network: Written, inputs: Tensor) -> None:
    shorter = paramtrans.translate(network, depth=0.6, calibrate=inputs)
    assert strengths(shorter) == [1.0, 2.0, 3.0] and strengths(network) == [1.0, 0.01, 2.0, 0.0, 3.0]
    assert [block.path for block in shorter.paramtrans_blocks] == ["blocks.3", "blocks.1"]
    assert all(block.taken_out and block.held_out and block.parameters[1] == 0 for block in shorter.paramtrans_blocks)
    # The features behind block 3 lack what block 1 added.
    assert 0 < shorter.paramtrans_blocks[1].feature_error < 1e-3
    for name, tensor in network.state_dict().items():
        if name.startswith(("blocks.4", "head")):
            assert torch.equal(shorter.state_dict()[name.replace("blocks.4", "blocks.2")], tensor)


def test_a_forward_that_a_library_put_on_a_block_stays(network: Written, inputs: Tensor) -> None:
    def half(block: Residual, features: Tensor) -> Tensor:
        return features + 0.5 * block.strength * block.inner(features)

    for number, block in enumerate(network.blocks):
        block.forward = partial(half, block) if number % 2 else MethodType(half, block)
    shorter = paramtrans.translate(network, depth=0.8, calibrate=inputs)
    assert strengths(shorter) == [1.0, 0.01, 2.0, 3.0]
    assert torch.equal(shorter(inputs), network(inputs))  # the block that went added nothing
    assert all("forward" in vars(block) for block in (*shorter.blocks, *network.blocks))


def test_errors_of_all_blocks_that_go_are_of_one_pass(network: Written, inputs: Tensor) -> None:
    parts = find_parts(network, ["blocks.1", "blocks.2", "blocks.3"], inputs)[0]
    passes = list[int]()
    network.register_forward_pre_hook(lambda _, args: passes.append(len(args[0])))
    errors = feature_errors(network, {part.part.path: nn.Identity() for part in parts}, inputs.split(20))
    assert passes == [20, 20, 20, 20]
    entering, leaving = network.blocks[0](inputs), list[Tensor]()
    for block in network.blocks[:4]:
        leaving.append(block(leaving[-1] if leaving else inputs))
    for error, wanted in zip(errors.values(), leaving[1:], strict=True):
        assert error == pytest.approx(streamed_error([(entering, wanted)]))


class Branch(Residual):
    """What it gives is added to the stream by its network."""

    def forward(self, features: Tensor) -> Tensor:
        return self.strength * self.inner(features)


class Adding(nn.Module):
    """A network that adds what its blocks give to what they got."""

    def __init__(self, strengths: tuple[float, ...]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Branch(number, strength) for number, strength in enumerate(strengths))

    def forward(self, features: Tensor) -> Tensor:
        for block in self.blocks:
            features = features + block(features)
        return features


def test_where_the_network_adds_a_block_to_its_stream_the_stream_stays(inputs: Tensor) -> None:
    torch.manual_seed(0)
    network = Adding((1.0, 0.5, 2.0, 0.0, 3.0)).eval()
    shorter = paramtrans.translate(network, depth=0.8, calibrate=inputs)
    assert [(block.path, block.taken_out) for block in shorter.paramtrans_blocks] == [("blocks.3", True)]
    assert torch.allclose(shorter(inputs), network(inputs))  # a block of strength 0
    assert shorter.paramtrans_blocks[0].feature_error is None


def test_numbers_that_count_along_the_list_follow(network: Written, inputs: Tensor) -> None:
    shorter = paramtrans.translate(network, depth=0.6, calibrate=inputs)
    assert [block.number for block in shorter.blocks] == [0, 1, 2]
    assert [block.number for block in network.blocks] == [0, 1, 2, 3, 4]


def test_where_the_code_insists_on_its_blocks_something_hands_on_in_their_place(inputs: Tensor) -> None:
    torch.manual_seed(0)
    network = Written(indexed=True).eval()
    shorter = paramtrans.translate(network, depth=0.6, calibrate=inputs)
    assert not any(block.taken_out for block in shorter.paramtrans_blocks) and len(shorter.blocks) == 5
    with torch.no_grad():
        network.blocks[1].strength = 0.0
        assert torch.equal(shorter(inputs), network(inputs))
    assert shorter.blocks[4].number == 4


@pytest.mark.parametrize("indexed", [False, True])
def test_a_shorter_network_is_read_from_its_file_again(tmp_path: Path, inputs: Tensor, indexed: bool) -> None:
    torch.manual_seed(0)
    network = Written(indexed=indexed).eval()
    shorter = paramtrans.translate(network, depth=0.6, ratio=0.5, calibrate=inputs)
    assert {type(block).__name__ for block in shorter.paramtrans_blocks} > {"LeftOut"}
    paramtrans.save_translated(shorter, tmp_path / "x.safetensors")
    again = paramtrans.load_translated(tmp_path / "x.safetensors", Written(indexed=indexed))
    assert torch.equal(again(inputs), shorter(inputs)) and again.paramtrans_blocks == shorter.paramtrans_blocks


@pytest.mark.parametrize("missing", ["blocks.9", "nowhere.1", ""])
def test_a_record_that_leaves_out_what_is_not_there_is_refused(
    tmp_path: Path, network: Written, inputs: Tensor, missing: str
) -> None:
    path = tmp_path / "x.safetensors"
    paramtrans.save_translated(paramtrans.translate(network, depth=0.6, calibrate=inputs), path)
    record = json.loads(path.with_name("x.safetensors.json").read_text())
    record["blocks"][0]["path"] = missing
    path.with_name("x.safetensors.json").write_text(json.dumps(record))
    with pytest.raises(StoreError, match="does not fit"):
        paramtrans.load_translated(path, Written())


def test_leaving_out_goes_before_all_else(network: Written, inputs: Tensor) -> None:
    narrower = paramtrans.translate(network, ratio=0.5, calibrate=inputs)
    with pytest.raises(SpecMismatch, match="leave blocks out first"):
        paramtrans.translate(narrower, depth=0.6, calibrate=inputs)
    shorter = paramtrans.translate(network, depth=0.6, calibrate=inputs)
    again = paramtrans.translate(shorter, depth=0.4, calibrate=inputs)
    assert len(again.blocks) == 1 and len(again.paramtrans_blocks) == 4


def test_flags_of_training_stay_with_the_blocks_that_stay(network: Written, inputs: Tensor) -> None:
    network.train()
    network.blocks[4].eval()
    shorter = paramtrans.translate(network, depth=0.6, calibrate=inputs)
    assert [block.training for block in shorter.blocks] == [True, True, False]


def test_blocks_may_be_named_by_their_paths(network: Written, inputs: Tensor) -> None:
    shorter = paramtrans.translate(network, depth=0, blocks="blocks.4", calibrate=inputs)
    assert strengths(shorter) == [1.0, 0.01, 2.0, 0.0]


def test_with_targets_the_parts_that_cost_least_are_replaced(network: Written, inputs: Tensor) -> None:
    options = {"steps": 0}
    small = paramtrans.translate(
        network, depth=0.6, to={"blocks.*,head": "linear_map"}, options=options, calibrate=inputs
    )
    assert {block.path for block in small.paramtrans_blocks} == {"blocks.1", "blocks.3"}
    # The head gives another shape, so that no linear map fits there.
    assert {block.started for block in small.paramtrans_blocks} == {"closed form"}
    with pytest.raises(SpecMismatch, match="begins at random"):
        paramtrans.translate(network, depth=0.6, to={"blocks.*.inner": "gated_mlp?bias=false"}, calibrate=inputs)


def test_with_targets_parts_that_none_fits_are_said(network: Written, inputs: Tensor) -> None:
    with pytest.raises(SpecMismatch, match=r"nothing to choose from.*head"):
        paramtrans.translate(network, depth=0.6, to={"head": "linear_map"}, calibrate=inputs)


def test_blocks_are_judged_on_inputs_that_they_do_not_start_from() -> None:
    from paramtrans.networks.depth.shortening import _two_parts

    rows = torch.arange(10)
    started_on, judged = _two_parts([rows[:6], rows[6:]])
    assert not {*started_on.tolist()} & {*torch.cat(judged).tolist()}
    started_on, judged = _two_parts([rows[:6]])
    assert (started_on.tolist(), [batch.tolist() for batch in judged]) == ([0, 2, 4], [[1, 3, 5]])


@pytest.mark.parametrize(
    ("batches", "length", "taken"), [(1, 50, 32), (4, 50, 32), (3, 2, 6), (40, 1, 20), (100, 8, 34)]
)
def test_costs_are_of_examples_from_all_batches_alike(batches: int, length: int, taken: int) -> None:
    chosen = some_examples([torch.full((length,), number) for number in range(batches)], 32)
    numbers = torch.cat(chosen)
    assert len(numbers) == taken and int(numbers.max()) >= 0.9 * (batches - 1)


def test_the_next_block_is_the_best_behind_those_before_it(inputs: Tensor) -> None:
    """What lazy greedy finds is what measuring all blocks again each time finds."""
    torch.manual_seed(2)
    network = Written((0.4, 0.3, 0.5, 0.35, 0.45, 0.3)).eval()
    blocks = {f"blocks.{number}": nn.Identity() for number in range(6)}
    with torch.no_grad():
        wanted, gone = network(inputs), list[str]()
        for _ in range(3):
            errors = {}
            for path in blocks.keys() - gone:
                with standing_in(network, {block_path: blocks[block_path] for block_path in (*gone, path)}):
                    errors[path] = float((network(inputs) - wanted).square().mean())
            gone.append(min(errors, key=errors.__getitem__))
        assert cheapest(network, blocks, 3, [inputs], Reporter()) == gone
        assert torch.equal(network(inputs), wanted)


class Stage(nn.Module):
    """Blocks behind a layer that may change the shape."""

    def __init__(self, entering: int, leaving: int) -> None:
        super().__init__()
        self.first = nn.Linear(entering, leaving)
        named = OrderedDict((f"b{number}", nn.Sequential(nn.Linear(leaving, leaving), nn.ReLU())) for number in "12")
        self.blocks = nn.Sequential(named)

    def forward(self, features: Tensor) -> Tensor:
        return self.blocks(self.first(features))


def test_blocks_are_found_inside_stages_whatever_they_are_called(inputs: Tensor) -> None:
    network = nn.Sequential(Stage(6, 6), Stage(6, 4), nn.ReLU(), nn.ReLU()).eval()
    repeated = repeated_blocks(network, "*", inputs)
    assert [part.part.path for part in repeated] == ["0.blocks.b1", "0.blocks.b2", "1.blocks.b1", "1.blocks.b2"]
    shorter = paramtrans.translate(network, depth=0.5, calibrate=inputs)
    names = {f"{number}.blocks.{name}" for number in "01" for name in ("b1", "b2")}
    gone = {block.path for block in shorter.paramtrans_blocks}
    assert {name for name, _ in shorter.named_modules()} & names == names - gone


def test_a_stage_of_one_block_hides_no_blocks_of_other_stages(inputs: Tensor) -> None:
    first = Stage(6, 6)
    del first.blocks.b2
    network = nn.Sequential(first, Stage(6, 4), Stage(4, 3)).eval()
    repeated = repeated_blocks(network, "*", inputs)
    assert [part.part.path for part in repeated] == ["1.blocks.b1", "1.blocks.b2", "2.blocks.b1", "2.blocks.b2"]


def test_blocks_with_hooks_stay(network: Written, inputs: Tensor) -> None:
    network.blocks[3].inner[1].register_forward_hook(lambda *_: None)
    shorter = paramtrans.translate(network, depth=0.75, calibrate=inputs)
    assert [block.path for block in shorter.paramtrans_blocks] == ["blocks.1"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"depth": 1.0}, "no share"),
        ({"depth": -0.1}, "no share"),
        ({"depth": 0.95}, "at 0.80 one goes"),
        ({"depth": 0.5, "calibrate": ()}, "unlabelled inputs"),
        ({"depth": 0.5, "blocks": "nowhere*"}, "nowhere"),
    ],
)
def test_what_cannot_be_left_out_is_said(
    network: Written, inputs: Tensor, arguments: dict[str, object], words: str
) -> None:
    with pytest.raises(SpecMismatch, match=words):
        paramtrans.translate(network, **{"calibrate": inputs, **arguments})


@pytest.mark.parametrize("total", range(2, 40))
def test_the_share_that_a_refusal_names_leaves_one_block_out(total: int) -> None:
    assert count_gone(round((total - 1) / total, 2), total) == 1


def test_a_network_without_repeated_blocks_is_refused(inputs: Tensor) -> None:
    with pytest.raises(SpecMismatch, match="repeats no blocks"):
        paramtrans.translate(nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6)), depth=0.5, calibrate=inputs)


@pytest.mark.parametrize("kind", ["resnet", "vision transformer", pytest.param("efficientnet", marks=pytest.mark.slow)])
def test_networks_of_libraries_do_without_some_blocks(kind: str) -> None:
    torch.manual_seed(0)
    if kind == "resnet":
        network: nn.Module = torchvision.models.resnet18(num_classes=3)
        could_go = ["layer1.0", "layer1.1", "layer2.1", "layer3.1", "layer4.1"]
    elif kind == "vision transformer":
        network = torchvision.models.VisionTransformer(32, 8, 4, 2, 16, 32, num_classes=3)
        could_go = [f"encoder.layers.encoder_layer_{number}" for number in range(4)]
    else:
        network = timm.create_model("efficientnet_b0", num_classes=3)
        could_go = [
            f"blocks.{stage}.{block}" for stage, count in enumerate((1, 2, 2, 3, 3, 4)) for block in range(1, count)
        ]
    images = torch.randn(4, 3, 32, 32)
    parts = repeated_blocks(network.eval(), "*", images)
    assert [part.part.path for part in parts] == could_go
    shorter = paramtrans.translate(network, depth=0.5, calibrate=images)
    assert all(block.taken_out for block in shorter.paramtrans_blocks)
    gone = {block.path: Placed(nn.Identity(), Calling(True, None)) for block in shorter.paramtrans_blocks}
    with standing_in(network, gone), torch.no_grad():
        torch.testing.assert_close(shorter(images), network(images))


def test_a_block_left_out_is_described_as_such(network: Written, inputs: Tensor) -> None:
    from paramtrans.networks.results.described import describe_blocks, size_changes

    shorter = paramtrans.translate(network, depth=0.75, calibrate=inputs)
    [block] = describe_blocks(shorter)
    assert isinstance(shorter.paramtrans_blocks[0], LeftOut)
    assert size_changes(block) == ("Residual → left out", "110 → 0")
