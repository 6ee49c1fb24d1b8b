"""Blocks of a network that are made smaller where they stand: what is no size stays, what else reads them is seen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

import paramtrans
from paramtrans import components
from paramtrans.errors import SpecMismatch

IMAGES, ROWS = torch.randn(32, 3, 8, 8), torch.randn(32, 6)


def basic_block() -> nn.Module:
    """One that `basic_block` recognises."""
    return components().create("block_adapter", "basic_block", channels=4, hidden=4).module()


def convolutions() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3)).eval()


def mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3)).eval()


def error(small: nn.Module, network: nn.Module, inputs: Tensor) -> float:
    """The squared change of the outputs, over their variance in each channel."""
    with torch.no_grad():
        changed, outputs = small(inputs) - network(inputs), network(inputs)
    return float(changed.square().mean() / outputs.var((0, 2, 3), correction=0).mean())


def test_all_that_is_no_size_stays() -> None:
    network = convolutions()
    network[1].momentum = 0.3
    network[1].num_batches_tracked += 7
    network[0].weight.requires_grad = False
    network.to(memory_format=torch.channels_last).train()
    network[1].eval()
    layers = [type(layer) for layer in network]
    small = paramtrans.translate(network, "prune", ratio=0.5, calibrate=IMAGES)
    assert small[0].weight.shape == (4, 3, 3, 3) and (small[0].out_channels, small[3].in_channels) == (4, 4)
    assert not small[0].weight.requires_grad and small[3].weight.requires_grad
    assert small[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert (small[1].momentum, int(small[1].num_batches_tracked), small[1].num_features) == (0.3, 7, 4)
    assert small.training and not small[1].training and [type(layer) for layer in small] == layers
    assert network[0].weight.shape == (8, 3, 3, 3) and network[0].out_channels == 8


def test_an_input_normalisation_in_a_hook_acts_on_the_smaller_block() -> None:
    network, images = convolutions(), 100 + 50 * torch.randn(128, 3, 8, 8)
    network[0].register_forward_pre_hook(lambda _, given: ((given[0] - 100) / 50,))
    small = paramtrans.translate(network, ratio=0.5, calibrate=images)
    [block] = small.paramtrans_blocks
    assert block.feature_error == pytest.approx(error(small, network, images[7::8]), rel=1e-3)


def test_a_buffer_that_counts_passes_is_as_it_was() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), basic_block()).eval()
    network[0].register_buffer("calls", torch.tensor(7))
    network[0].register_forward_pre_hook(lambda module, given: given if module.calls.add_(1) else None)
    small = paramtrans.translate(network, ratio=0.5, by="blocks", calibrate=IMAGES)
    assert int(small[0].calls) == int(network[0].calls) == 7


def test_hooks_stay_with_a_file_too(tmp_path: Path) -> None:
    network = mlp()
    network[0].register_forward_pre_hook(lambda _, given: (given[0] * 2,))
    small = paramtrans.translate(network, "prune", ratio=0.5, calibrate=ROWS)
    paramtrans.save_translated(small, tmp_path / "small.safetensors")
    again = paramtrans.load_translated(tmp_path / "small.safetensors", network)
    assert torch.equal(again(ROWS), small(ROWS)) and again[0]._forward_pre_hooks


class Tapped(nn.Module):
    """Gives hidden features out, or their norm, or has them in a loss of its own."""

    def __init__(self, tap: Callable[[Tensor], Tensor] | None) -> None:
        super().__init__()
        self.f, self.g, self.tap = mlp(), mlp(), tap

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        hidden = self.f[:2](x)
        return {"tapped": self.tap(hidden) if self.tap else x, "output": self.f[2](hidden) + self.g(x)}


class Counted(nn.Module):
    """Goes on from hidden features only where they are as many as it knows."""

    def __init__(self) -> None:
        super().__init__()
        self.f, self.g = mlp(), mlp()

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.f[:2](x)
        output: Tensor = self.f[2](hidden.reshape(len(x), 16)) + self.g(x)
        return output


@pytest.mark.usefixtures("linear_blocks")
def test_code_without_room_for_fewer_units_is_told_before_anything_is_translated() -> None:
    network = Counted().eval()
    with pytest.raises(SpecMismatch, match="f: the code around it takes no other number of hidden units"):
        paramtrans.translate(network, "prune", calibrate=ROWS, by="blocks")
    small = paramtrans.translate(network, "prune", calibrate=ROWS, by="blocks", blocks="g")
    assert (small.f[0].out_features, small.g[0].out_features) == (16, 8)


TAPS: dict[str, Callable[[Tensor], Tensor]] = {
    "all": lambda h: h,
    "their norm": lambda h: h.norm(dim=1),
    "their shares": lambda h: h / h.mean(1, keepdim=True),
    "the first": lambda h: h[:, 0],
    "one of the first": lambda h: h[:, 3:4],
    "the last": lambda h: h[:, -1:],
    "every other": lambda h: h[:, ::2].sum(1),
}


@pytest.mark.usefixtures("linear_blocks")
@pytest.mark.parametrize("tap", TAPS.values(), ids=TAPS)
def test_a_block_whose_hidden_features_are_read_elsewhere_is_left(tap: Callable[[Tensor], Tensor]) -> None:
    small = paramtrans.translate(Tapped(tap).eval(), "prune", ratio=0.5, calibrate=ROWS, by="blocks")
    assert [block.path for block in small.paramtrans_blocks] == ["g"]
    both = paramtrans.translate(Tapped(None).eval(), "prune", ratio=0.5, calibrate=ROWS, by="blocks")
    assert [block.path for block in both.paramtrans_blocks] == ["f", "g"]


@pytest.mark.usefixtures("linear_blocks")
def test_a_hook_that_is_given_hidden_features_is_named() -> None:
    for layer in (0, 1, 2):
        network = mlp()
        hook: Callable[..., None] = lambda *_: None  # noqa: E731
        (network[2].register_forward_pre_hook if layer == 2 else network[layer].register_forward_hook)(hook)
        with pytest.raises(SpecMismatch, match=f"a hook of {layer} is given its hidden features"):
            paramtrans.translate(network, ratio=0.5, calibrate=ROWS, by="blocks")


def test_layers_with_tensors_of_their_own_are_left() -> None:
    class Adapted(nn.Conv2d):
        """As an adapter for fine-tuning that has not learned anything yet."""

        def __init__(self) -> None:
            super().__init__(4, 4, 3, padding=1, bias=False)
            self.down = nn.Parameter(torch.zeros(4))

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + self.down.view(1, 4, 1, 1)

    network = nn.Sequential(nn.Conv2d(3, 4, 3), basic_block()).eval()
    network[1].conv1 = Adapted()
    with pytest.raises(SpecMismatch, match=r"1\.conv1 is a Adapted with tensors of its own"):
        paramtrans.translate(network, ratio=0.5, calibrate=IMAGES, by="blocks")


def test_a_block_of_another_kind_keeps_hooks_of_its_own_and_refuses_those_inside() -> None:
    network, seen = nn.Sequential(nn.Conv2d(3, 4, 3), basic_block()).eval(), []
    network[1].register_forward_hook(lambda *_: seen.append(1))
    small = paramtrans.translate(network, to={"1": "bottleneck"}, calibrate=IMAGES, options={"steps": 1})
    seen.clear()
    small(IMAGES)
    assert seen == [1] and type(small[1]) is not type(network[1])
    network[1].conv2.register_forward_hook(lambda *_: seen.append(2))
    with pytest.raises(SpecMismatch, match="conv2 in it has hooks"):
        paramtrans.translate(network, to={"1": "bottleneck"}, calibrate=IMAGES, options={"steps": 1})


def pruned(layer: nn.Module) -> nn.Module:
    return prune.l1_unstructured(layer, "weight", 0.3)


UNLIKE: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "weight_norm": (lambda: around(nn.utils.weight_norm), "0 is a Linear without weight"),
    "spectral_norm": (lambda: around(nn.utils.spectral_norm), "0 is a Linear without weight"),
    "a mask of pruning": (lambda: around(pruned), "0 is a Linear without weight"),
}


def around(change: Callable[[nn.Module], nn.Module]) -> nn.Module:
    return nn.Sequential(change(nn.Linear(6, 12)), nn.ReLU(), nn.Linear(12, 6))


@pytest.mark.usefixtures("linear_blocks")
@pytest.mark.filterwarnings("ignore:.*weight_norm")
@pytest.mark.parametrize(("make", "reason"), UNLIKE.values(), ids=UNLIKE)
def test_layers_without_the_expected_tensors_are_left_as_they_are(make: Callable[[], nn.Module], reason: str) -> None:
    for calibrate in ((), torch.randn(8, 5, 6)):
        with pytest.raises(SpecMismatch, match=reason):
            paramtrans.translate(make().eval(), "prune", calibrate=calibrate, by="blocks")
    both = nn.Sequential(make(), nn.Tanh(), mlp()).eval()
    small = paramtrans.translate(both, "prune", calibrate=torch.randn(8, 5, 6), by="blocks")
    [block] = small.paramtrans_blocks
    assert all(path.startswith("2.") for path in block.layers.values())


@pytest.mark.usefixtures("linear_blocks")
def test_a_translator_that_keeps_widths_writes_blocks_at_ratio_one() -> None:
    small = paramtrans.translate(mlp(), "quantise", ratio=1.0, options={"bits": 2})
    assert len(small[0].weight[0].unique()) <= 3 and small.paramtrans_blocks
    assert not paramtrans.translate(mlp(), "prune", ratio=1.0).paramtrans_blocks
