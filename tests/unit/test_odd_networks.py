"""Networks as users write them: units of each are found and proven, or refused with what to do."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, weight_norm

import paramtrans
from paramtrans.errors import SpecMismatch

IMAGES, ROWS = (40, 4, 8, 8), (40, 6)


class Shuffled(nn.Module):
    """Four channels become the pixels of one."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.shuffle, self.norm = nn.Conv2d(4, 24, 3), nn.PixelShuffle(2), nn.BatchNorm2d(6)
        self.up, self.last = nn.ConvTranspose2d(6, 8, 2), nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.relu(self.up(F.relu(self.norm(self.shuffle(self.wide(x)))))))


class Normed(nn.Module):
    """Weights with norms of their own, by both functions of PyTorch."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = parametrizations.weight_norm(nn.Linear(6, 12)), nn.Linear(12, 8), nn.Linear(8, 10)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            self.c = weight_norm(self.c)
        self.d = nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.d(F.relu(self.c(torch.tanh(self.b(F.relu(self.a(x)))))))


class Dots(nn.Module):
    """Einsum with dots, with its result and without."""

    def __init__(self) -> None:
        super().__init__()
        self.w, self.v = nn.Parameter(torch.randn(6, 10)), nn.Parameter(torch.randn(10, 4))

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("...d,do", F.relu(torch.einsum("...c, cd -> ...d", x, self.w)), self.v)


class BothWays(nn.Module):
    """One weight, there and back."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 12)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.layer(x)) @ self.layer.weight


class Counting(nn.Module):
    """Counts its passes."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.passes = nn.Linear(6, 12), nn.Linear(12, 3), 0
        self.register_buffer("mean", torch.zeros(6))

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        self.mean.mul_(0.9).add_(0.1 * x.mean(0))
        return self.b(F.relu(self.a(x)))


class Generated(nn.Module):
    """A weight that another layer makes of a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.code, self.enter, self.make = nn.Parameter(torch.randn(4)), nn.Linear(4, 10), nn.Linear(10, 18)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.make(F.relu(self.enter(self.code))).view(6, 3)


class OneKey(nn.Module):
    """All heads share one key head, in PyTorch's own attention."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = 4
        self.query, self.both, self.out = nn.Linear(6, 16), nn.Linear(6, 8), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        query = self.query(x).unflatten(-1, (self.heads, 4)).transpose(1, 2)
        key, value = self.both(x).unflatten(-1, (2, 1, 4)).transpose(1, 3).unbind(2)
        mixed = F.scaled_dot_product_attention(query, key, value, enable_gqa=True)
        return self.out(mixed.transpose(1, 2).flatten(2))


@pytest.mark.parametrize(
    ("kind", "shape", "units"),
    [
        (Shuffled, IMAGES, {"wide": (6, 3), "last": (8, 4)}),
        (Normed, ROWS, {"a": (12, 6), "c": (10, 5)}),
        (Dots, (40, 5, 6), {"": (10, 5)}),
        (BothWays, ROWS, {"layer": (12, 6)}),
        (Counting, ROWS, {"a": (12, 6)}),
        (OneKey, (40, 5, 6), {"query": (4, 2)}),
        (Generated, ROWS, {"": (4, 2), "enter": (10, 5)}),
    ],
)
def test_units_go_and_the_network_is_rebuilt(
    kind: type[nn.Module], shape: tuple[int, ...], units: dict[str, tuple[int, int]], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    network, inputs, path = kind().eval(), torch.randn(shape), tmp_path / "small.safetensors"
    small = paramtrans.translate(network, ratio=0.5, calibrate=inputs)
    assert {block.path: block.units for block in small.paramtrans_blocks} == units
    paramtrans.save_translated(small, path)
    again = paramtrans.load_translated(path, kind())
    outputs = small(inputs)
    assert outputs.shape == network(inputs).shape and outputs.isfinite().all()
    assert torch.equal(outputs[:3].round(decimals=4), small(inputs[:3]).round(decimals=4))
    torch.testing.assert_close(again(inputs), outputs)


def test_numbers_that_are_counted_up_are_no_sizes() -> None:
    network = Counting().eval()
    network.passes = 7
    small = paramtrans.translate(network, ratio=0.5, calibrate=torch.randn(ROWS))
    assert (small.passes, network.passes, small.a.out_features) == (7, 7, 6)


@pytest.mark.parametrize(
    "asked", [{"by": "units", "finish": 2}, {"to": {"1.0": "linear_map"}, "finish": 2}, {"depth": 0.5}]
)
def test_what_passes_change_is_as_it_was(asked: dict[str, Any]) -> None:
    torch.manual_seed(0)
    repeated = nn.Sequential(*(nn.Sequential(nn.Linear(3, 3), nn.Tanh()) for _ in range(2)))
    network = nn.Sequential(Counting(), repeated).eval()
    network[0].passes, network[0].mean = 7, torch.full((6,), 2.0)
    small = paramtrans.translate(network, calibrate=torch.randn(64, 6) + 5, **asked)
    for counting in (network[0], small[0]):
        assert counting.passes == 7
        assert torch.equal(counting.mean, torch.full((6,), 2.0))


def test_the_error_of_a_layer_that_always_gives_the_same_is_not_known() -> None:
    small = paramtrans.translate(Generated().eval(), ratio=0.5, calibrate=torch.randn(ROWS))
    assert [block.feature_error for block in small.paramtrans_blocks] == [None, None]


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.enter, self.mix, self.leave = nn.Linear(6, 12), nn.Linear(12, 12), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        return self.leave(x + torch.tanh(self.mix(x)))


@pytest.mark.parametrize(
    ("network", "said"),
    [
        (
            lambda: nn.Sequential(parametrizations.spectral_norm(nn.Linear(6, 12)), nn.ReLU(), nn.Linear(12, 3)),
            'weights of "0" are computed from others: make them plain first',
        ),
        (Residual, "residual streams go with stream"),
    ],
)
def test_without_hidden_units_it_is_said_what_may_help(network: type[nn.Module], said: str) -> None:
    with pytest.raises(SpecMismatch, match=said):
        paramtrans.translate(network().eval(), ratio=0.5, calibrate=torch.randn(ROWS))


class Supervised(nn.Module):
    """Has a head on its hidden features in training alone, and one in eval mode that takes other features."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 12), nn.Linear(12, 3)
        self.auxiliary, self.other = nn.Linear(12, 2), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Any:
        hidden = F.relu(self.a(x))
        return (self.b(hidden), self.auxiliary(hidden), self.other(x)) if self.training else self.b(hidden)


def test_layers_that_are_used_in_training_alone_are_named(caplog: pytest.LogCaptureFixture) -> None:
    small = paramtrans.translate(Supervised().eval(), ratio=0.5, calibrate=torch.randn(ROWS))
    assert (small.a.out_features, small.auxiliary.in_features) == (6, 12)
    assert '"auxiliary": no output in eval mode depends on them' in caplog.text and '"other"' not in caplog.text
    caplog.clear()
    paramtrans.translate(Counting().eval(), ratio=0.5, calibrate=torch.randn(ROWS))
    assert "no output" not in caplog.text
