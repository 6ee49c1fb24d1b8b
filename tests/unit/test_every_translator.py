"""Every translator on groups of every kind of network: smaller and finite, or refused with its reason."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock
from transformers import LlamaConfig, LlamaForCausalLM

import paramtrans
from paramtrans.errors import SpecMismatch
from paramtrans.evaluation.costs import parameters


class Dense(nn.Module):
    """Each layer reads all before it, concatenated."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(4 + 6 * i), nn.ReLU(), nn.Conv2d(4 + 6 * i, 6, 3, padding=1)) for i in range(3)
        )
        self.head = nn.Linear(22, 3)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))


class UNet(nn.Module):
    """Down, up by a transposed convolution, and across."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.down = nn.Conv2d(4, 8, 3, padding=1), nn.Conv2d(8, 12, 3, stride=2, padding=1)
        self.middle, self.up = nn.Conv2d(12, 12, 3, padding=1), nn.ConvTranspose2d(12, 8, 2, stride=2)
        self.norm, self.join, self.leave = nn.GroupNorm(2, 12), nn.Conv2d(16, 8, 3, padding=1), nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        across = F.relu(self.enter(x))
        deep = F.relu(self.norm(self.middle(F.relu(self.down(across)))))
        return self.leave(F.relu(self.join(torch.cat([across, self.up(deep)], 1))))


class Recurrent(nn.Module):
    """Hidden units of an LSTM stay, those of the layers around it go."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.mid, self.lstm = nn.Linear(6, 16), nn.Linear(16, 8), nn.LSTM(8, 10, batch_first=True)
        self.up, self.head = nn.Linear(10, 12), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.lstm(F.relu(self.mid(F.relu(self.enter(x)))))[0]
        return self.head(F.relu(self.up(x[:, -1])))


class Attending(nn.Module):
    """PyTorch's own attention, and its transformer layer."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.norm = nn.Linear(6, 16), nn.LayerNorm(16)
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)
        self.layer, self.head = nn.TransformerEncoderLayer(16, 2, 24, batch_first=True), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        normed = self.norm(x)
        x = x + self.attention(normed, normed, normed, need_weights=False)[0]
        return self.head(self.layer(x))


def resnet() -> nn.Module:
    wider = nn.Sequential(nn.Conv2d(8, 12, 1, stride=2, bias=False), nn.BatchNorm2d(12))
    blocks = (BasicBlock(8, 8), BasicBlock(8, 12, stride=2, downsample=wider))
    stem = (nn.Conv2d(4, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 3))


def llama() -> nn.Module:
    sizes = {"hidden_size": 16, "intermediate_size": 24, "vocab_size": 30, "num_hidden_layers": 1}
    return LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=4, num_key_value_heads=2, head_dim=4))


IMAGES, ROWS = (40, 4, 6, 6), (40, 5, 6)
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "ResNet": (resnet, IMAGES),
    "Llama": (llama, ()),
    "DenseNet": (Dense, IMAGES),
    "U-Net": (UNet, IMAGES),
    "LSTM": (Recurrent, ROWS),
    "attention": (Attending, ROWS),
}
CHOOSING = {"prune": {}, "select": {}, "merge": {}, "refit": {}, "matching": {"steps": 3}}
GOING_ON = {"quantise": {"bits": 4}, "matching": {"steps": 3}, "refit": {}}
NO_UNITS = {"low_rank": "writes blocks that an adapter knows", "quantise": "name it in then"}


def marked(name: str, mark: pytest.MarkDecorator) -> Any:
    """All but the first small networks take longer."""
    return pytest.param(name, marks=() if name in ("LSTM", "attention") else mark)


@cache
def given(name: str) -> tuple[nn.Module, Any]:
    """A network in eval mode, and inputs."""
    torch.manual_seed(0)
    make, shape = NETWORKS[name]
    network = make()
    inputs: Any = torch.randn(shape) if shape else {"input_ids": torch.randint(30, (40, 6))}
    return network.eval(), inputs


def held(name: str, translator: str, **asked: Any) -> None:
    network, inputs = given(name)
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    small = paramtrans.translate(network, translator, ratio=0.5, by="units", calibrate=inputs, **asked)
    outputs = [net(**inputs)[0] if isinstance(inputs, dict) else net(inputs) for net in (network, small)]
    assert outputs[0].shape == outputs[1].shape and outputs[1].isfinite().all()
    rows = small.paramtrans_blocks
    lost = sum(row.parameters[0] - row.parameters[1] for row in rows)
    assert rows and lost == parameters(network) - parameters(small) > 0.1 * parameters(network)
    assert all(torch.equal(tensor, before[key]) for key, tensor in network.state_dict().items())


@pytest.mark.parametrize("translator", CHOOSING)
@pytest.mark.parametrize("name", [marked(name, pytest.mark.thorough) for name in NETWORKS])
def test_what_chooses_units_does_in_every_network(name: str, translator: str) -> None:
    held(name, translator, options=CHOOSING[translator])


@pytest.mark.thorough
@pytest.mark.parametrize("then", GOING_ON)
@pytest.mark.parametrize("name", [marked(name, pytest.mark.slow) for name in NETWORKS])
def test_what_goes_on_from_units_does_in_every_network(name: str, then: str) -> None:
    held(name, "prune", then={then: GOING_ON[then]})


@pytest.mark.parametrize("translator", NO_UNITS)
@pytest.mark.parametrize("name", NETWORKS)
def test_what_works_on_no_units_says_so_in_every_network(name: str, translator: str) -> None:
    network, inputs = given(name)
    for by in ("units", None):
        with pytest.raises(SpecMismatch, match=NO_UNITS[translator]):
            paramtrans.translate(network, translator, by=by, calibrate=inputs)


@pytest.mark.slow
@pytest.mark.parametrize("translator", CHOOSING)
def test_streams_and_heads_go_too_by_every_translator(translator: str) -> None:
    held("attention", translator, options=CHOOSING[translator], stream=0.5)
    held("Llama", translator, options=CHOOSING[translator], stream=0.5, query_key=0.5, then={"quantise": {}})
