"""What the outputs of layers are added to, and layers solved for so that the sums are what they were."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, interpolate, relu

import paramtrans
from paramtrans.networks.forward.lockstep import Forward, Lockstep
from paramtrans.networks.forward.replays import replays_of
from paramtrans.networks.forward.sums import added_to, values_at
from paramtrans.networks.graph.proof import named_tensors


class Residual(nn.Module):
    """Adds what its layers give, in one of several ways."""

    def __init__(self, way: str = "plain", width: int = 8, hidden: int = 32) -> None:
        super().__init__()
        self.way = way
        self.norm, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        out = self.down(relu(self.up(self.norm(x))))
        if self.way == "in place":
            out += x
            return out
        if self.way == "dropout":
            return x + dropout(out, 0.5, self.training)
        if self.way == "factor":
            return torch.add(x, out, alpha=-1)
        if self.way == "used twice":
            return (out + x) * out
        if self.way == "behind":
            return out + self.norm(x)
        return x + out


class Parallel(nn.Module):
    """Two layers that are added to the same value: the second also makes up for the first."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        y = x.sin()
        first, second = self.first(y), self.second(y)
        return second + first + y


def sums_of(network: nn.Module, *names: str, inputs: Tensor | None = None) -> tuple[list[Any], Any]:
    """What the layers' outputs are added to, as a pass of the network finds it, and the network's output."""
    inputs = torch.randn(2, 8) if inputs is None else inputs
    weights = {id(network.get_submodule(name).weight): name for name in names}
    sums = added_to(lambda: network(inputs), weights)
    with Lockstep([Forward(lambda: network(inputs), weights, sums)]) as passes:
        return [calls[0].added_to for calls in passes.layers()], passes.outputs[0]


@pytest.mark.parametrize("way", ["plain", "in place", "dropout"])
def test_the_other_part_of_a_sum_is_known_when_the_layer_is_reached(way: str) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(8, 8), Residual(way)).eval()
    inputs = torch.randn(2, 8)
    [other], output = sums_of(network, "1.down", inputs=inputs)
    expected = network[0](inputs)
    torch.testing.assert_close(other, expected)
    assert not output.equal(other)


@pytest.mark.parametrize("way", ["used twice", "factor"])
def test_nothing_is_made_up_for_where_the_output_has_other_uses_or_a_factor(way: str) -> None:
    network = nn.Sequential(nn.Linear(8, 8), Residual(way)).eval()
    assert sums_of(network, "1.down")[0] == [None]


def test_what_is_added_to_the_networks_own_inputs_has_lost_nothing() -> None:
    assert sums_of(Residual().eval(), "down")[0] == [None]


def test_all_that_is_older_than_the_layer_counts() -> None:
    network, inputs = Parallel().eval(), torch.randn(2, 8)
    first, second = sums_of(network, "first", "second", inputs=inputs)[0]
    assert first is None  # the other layer's output comes later
    torch.testing.assert_close(second, network.first(inputs.sin()) + inputs.sin())


@pytest.fixture
def resnet() -> nn.Sequential:
    """A block whose skip is its input, one with a convolution on the skip, which it computes last, and a layer."""
    from torchvision.models.resnet import BasicBlock

    torch.manual_seed(0)
    skip = nn.Sequential(nn.Conv2d(8, 16, 1, stride=2), nn.BatchNorm2d(16))
    return nn.Sequential(nn.Conv2d(1, 8, 3), BasicBlock(8, 8), BasicBlock(8, 16, 2, skip), nn.Conv2d(16, 4, 1)).eval()


IMAGES = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def test_a_convolution_with_its_batch_norm_is_followed(resnet: nn.Sequential) -> None:
    first, second = sums_of(resnet, "1.conv2", "2.conv2", inputs=IMAGES)[0]
    torch.testing.assert_close(first, resnet[0](IMAGES))
    assert second is None  # not known when the layer is reached


def test_what_is_computed_behind_the_layer_is_had_by_a_pass_of_its_own(resnet: nn.Sequential) -> None:
    added = added_to(lambda: resnet(IMAGES), {id(resnet[2].conv2.weight): "2.conv2"})["2.conv2"]
    assert added.places == () and len(added.later) == 1
    resnet[3].register_forward_hook(lambda *_: pytest.fail("the pass went further than it had to"))
    values = values_at(lambda: resnet(IMAGES), added.later)
    assert values is not None
    torch.testing.assert_close(values[0], resnet[2].downsample(resnet[:2](IMAGES)))
    assert values_at(lambda: resnet[:2](IMAGES), added.later) is None


def replays_in(network: nn.Module, added: Any, *checks: Tensor) -> dict[Any, Any]:
    return replays_of(
        lambda: network(IMAGES),
        [partial(network, check) for check in checks],
        [added],
        named_tensors(network).values(),
    )


def test_what_is_computed_behind_the_layer_is_computed_ahead(resnet: nn.Sequential) -> None:
    weights = {id(resnet[2].conv2.weight): "2.conv2"}
    sums = added_to(lambda: resnet(IMAGES), weights)
    replays = replays_in(resnet, sums["2.conv2"], IMAGES[:1], torch.randn(3, 1, 10, 10))
    assert {*replays} == {*sums["2.conv2"].later}
    with Lockstep([Forward(lambda: resnet(IMAGES), weights, sums, replays)]) as passes:
        [call] = next(passes.layers())
        assert call.replayed
        torch.testing.assert_close(call.added_to, resnet[2].downsample(resnet[:2](IMAGES)))
        list(passes.layers())
    assert torch.equal(passes.outputs[0], resnet(IMAGES))  # nothing was changed on the way


SKIPS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "a factor by how many examples there are": lambda skip, x: skip.mul(1.0 if len(x) < 3 else 3.0),
    "cut to how many there are": lambda skip, x: skip[: len(x)],
    "reshaped to how many there are": lambda skip, x: skip.reshape(len(x), *skip.shape[1:]),
    "enlarged to the size of the images": lambda skip, x: interpolate(skip, size=(x.shape[2] // 2, x.shape[3] // 2)),
}


@pytest.mark.parametrize("way", SKIPS)
def test_what_depends_on_sizes_is_not_computed_ahead(resnet: nn.Sequential, way: str) -> None:
    others = torch.randn(5, 1, 8, 8) if "how many" in way else torch.randn(2, 1, 12, 12)
    resnet[2].downsample.register_forward_hook(lambda module, args, output: SKIPS[way](output, args[0]))
    added = added_to(lambda: resnet(IMAGES), {id(resnet[2].conv2.weight): "2.conv2"})["2.conv2"]
    assert {*replays_in(resnet, added, IMAGES)} == {*added.later}
    assert replays_in(resnet, added, IMAGES, others) == {}
    alone = replays_in(resnet, added)[added.later[0]]
    ahead = alone({begin: resnet[:2](others) for begin in alone.begins})  # raises nothing
    assert ahead is None or ahead.shape != resnet[2].downsample(resnet[:2](others)).shape or "factor" in way


def test_a_pass_that_fails_says_nothing(resnet: nn.Sequential) -> None:
    added = added_to(lambda: resnet(IMAGES), {id(resnet[2].conv2.weight): "2.conv2"})["2.conv2"]
    assert replays_in(resnet, added, torch.zeros(1, 7)) == {}


@pytest.mark.parametrize("way", SKIPS)
def test_networks_whose_skips_depend_on_sizes_are_translated_as_with_passes_of_their_own(
    resnet: nn.Sequential, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    resnet[2].downsample.register_forward_hook(lambda module, args, output: SKIPS[way](output, args[0]))
    batches = [torch.randn(20, 1, 8, 8), torch.randn(1, 1, 8, 8), torch.randn(19, 1, 8, 8)]
    small = paramtrans.translate(resnet, calibrate=batches)
    module = import_module("paramtrans.networks.graph.reconstruct")
    monkeypatch.setattr(module, "replays_of", lambda *args: {})
    expected = paramtrans.translate(resnet, calibrate=batches)
    torch.testing.assert_close(small(batches[0]), expected(batches[0]), rtol=1e-4, atol=1e-5)


def test_a_layer_that_is_solved_for_later_is_not_counted_on(resnet: nn.Sequential) -> None:
    weights = {id(layer.weight): name for layer, name in ((resnet[2].conv2, "last"), (resnet[2].downsample[0], "skip"))}
    added = added_to(lambda: resnet(IMAGES), weights)
    assert {*added} == {"skip"} and added["skip"].later == ()
    [value] = values_at(lambda: resnet(IMAGES), added["skip"].places) or []
    block, entering = resnet[2], resnet[:2](IMAGES)
    torch.testing.assert_close(value, block.bn2(block.conv2(torch.relu(block.bn1(block.conv1(entering))))))


@pytest.mark.thorough
@pytest.mark.parametrize("way", ["plain", "behind"])
def test_layers_solved_for_make_up_for_what_was_lost_before(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(8, 8), *(Residual(way, hidden=64) for _ in range(6))).eval()
    inputs, others = torch.randn(512, 8), torch.randn(512, 8)

    def error() -> float:
        small = paramtrans.translate(network, ratio=0.25, calibrate=inputs, by="units")
        with torch.no_grad():
            return float((small(others) - network(others)).square().mean())

    made_up_for = error()
    monkeypatch.setattr(import_module("paramtrans.networks.graph.reconstruct"), "added_to", lambda *_: {})
    assert made_up_for < 0.9 * error()
