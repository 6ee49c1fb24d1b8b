"""Blocks of real networks: recognised where an adapter knows them, held to what they compute, replaced."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from paramtrans_blocks.basic import BasicBlockModule
from torch import Tensor, nn
from torchvision.models import MobileNetV2, ResNet, VisionTransformer
from torchvision.models.resnet import BasicBlock, Bottleneck

from paramtrans import components
from paramtrans.networks.blocks.finding import NetworkBlock, find_blocks, survey

REGISTRY = components()


class Feedforward(nn.Module):
    """As in many libraries: fc1, act, fc2."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.act, self.fc2 = nn.Linear(6, 12), nn.SiLU(), nn.Linear(12, 6)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.fc2(self.act(self.fc1(x)))


class Gated(Feedforward):
    """The same layers, another function."""

    def forward(self, x: Tensor) -> Tensor:
        return x + self.fc2(self.act(self.fc1(x)).sigmoid())


class BertLayer(nn.Module):
    """The feed-forward part of a BERT layer, by its names."""

    def __init__(self) -> None:
        super().__init__()
        self.intermediate, self.output = nn.Module(), nn.Module()
        self.intermediate.dense, self.intermediate.intermediate_act_fn = nn.Linear(6, 12), nn.GELU()
        self.output.dense, self.output.LayerNorm = nn.Linear(12, 6), nn.LayerNorm(6)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.intermediate.intermediate_act_fn(self.intermediate.dense(x))
        output: Tensor = self.output.LayerNorm(self.output.dense(hidden) + x)
        return output


class ProjectedAttention(nn.Module):
    """As in CLIP and its kin: q_proj, k_proj, v_proj, out_proj."""

    causal = False

    def __init__(self) -> None:
        super().__init__()
        self.head_dim = 2
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(6, 8) for _ in range(3))
        self.out_proj = nn.Linear(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        layers = (self.q_proj, self.k_proj, self.v_proj)
        q, k, v = (layer(x).unflatten(-1, (-1, self.head_dim)).transpose(-3, -2) for layer in layers)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        output: Tensor = x + self.out_proj(mixed.transpose(-3, -2).flatten(-2))
        return output


class Causal(ProjectedAttention):
    """The same layers, but each position looks at those before it alone."""

    causal = True


class BertAttention(nn.Module):
    """The attention part of a BERT layer, by its names."""

    def __init__(self) -> None:
        super().__init__()
        self.self, self.output = nn.Module(), nn.Module()
        self.self.attention_head_size = 3
        self.self.query, self.self.key, self.self.value = (nn.Linear(6, 6) for _ in range(3))
        self.output.dense, self.output.LayerNorm = nn.Linear(6, 6), nn.LayerNorm(6)

    def forward(self, x: Tensor) -> Tensor:
        layers = (self.self.query, self.self.key, self.self.value)
        q, k, v = (layer(x).unflatten(-1, (-1, 3)).transpose(-3, -2) for layer in layers)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v).transpose(-3, -2).flatten(-2)
        output: Tensor = self.output.LayerNorm(self.output.dense(mixed) + x)
        return output


def vgg() -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(True), nn.MaxPool2d(2)]
    layers += [nn.Conv2d(6, 8, 3, padding=1), nn.ReLU(True), nn.Conv2d(8, 5, 3), nn.ReLU(True)]
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 9), nn.ReLU(), nn.Dropout(0.5), nn.Linear(9, 4)]
    return nn.Sequential(*layers)


def mixed_groups() -> nn.Sequential:
    """A unit has as many channels as fit whole groups of both: six."""
    grouped = [nn.Conv2d(12, 12, 3, groups=6), nn.ReLU(), nn.Conv2d(12, 12, 3, groups=4), nn.BatchNorm2d(12)]
    return nn.Sequential(nn.Conv2d(3, 12, 1), nn.ReLU(), *grouped, nn.Conv2d(12, 5, 1))


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 7), nn.Tanh(), nn.Linear(7, 3))


def encoder(norm_first: bool) -> nn.Module:
    return nn.TransformerEncoderLayer(6, 2, 10, batch_first=True, norm_first=norm_first, activation="gelu")


def hosts_blocks() -> nn.Module:
    """Blocks as hosts have them."""
    return nn.Sequential(BasicBlockModule(3, 6, 3), BasicBlockModule(3, 3, 5))


IMAGES, TOKENS = (3, 32, 32), (5, 6)
NETWORKS: dict[str, tuple[Any, tuple[int, ...], dict[str, list[int]]]] = {
    "resnet": (
        lambda: ResNet(BasicBlock, [2, 1, 1, 1], width_per_group=64),
        IMAGES,
        {"layer1.0": [64], "layer1.1": [64], "layer2.0": [128], "layer3.0": [256], "layer4.0": [512]},
    ),
    "bottleneck": (
        lambda: ResNet(Bottleneck, [1, 1, 1, 1], width_per_group=16),
        IMAGES,
        {"layer1.0": [16, 16], "layer2.0": [32, 32], "layer3.0": [64, 64], "layer4.0": [128, 128]},
    ),
    "resnext": (  # a hidden unit is a whole group
        lambda: ResNet(Bottleneck, [1, 1, 1, 1], groups=4, width_per_group=8),
        IMAGES,
        {"layer1.0": [4], "layer2.0": [4], "layer3.0": [4], "layer4.0": [4]},
    ),
    "mixed groups": (mixed_groups, IMAGES, {"": [2]}),
    "blocks of hosts": (hosts_blocks, IMAGES, {"0": [6], "1": [3]}),
    "mobilenet": (
        lambda: MobileNetV2(3, 1.0, [[1, 8, 1, 1], [6, 8, 2, 2], [6, 12, 1, 2]]),
        IMAGES,
        {"features.2": [48], "features.3": [48], "features.4": [48]},
    ),
    "vit": (
        lambda: VisionTransformer(32, 8, 2, 2, 16, 24),
        IMAGES,
        {"encoder.layers.encoder_layer_0": [24], "encoder.layers.encoder_layer_1": [24]},
    ),
    "vgg": (vgg, IMAGES, {"": [6, 8]}),
    "encoder, norm last": (lambda: encoder(False), TOKENS, {"": [10]}),
    "encoder, norm first": (lambda: encoder(True), TOKENS, {"": [10]}),
    "mlp": (mlp, TOKENS, {"": [8, 7]}),
    "fc1 and fc2": (lambda: nn.Sequential(Feedforward(), Feedforward()), TOKENS, {"0": [12], "1": [12]}),
    "bert": (BertLayer, TOKENS, {"": [12]}),
    "bert attention": (BertAttention, TOKENS, {"": [2]}),
    "projected attention": (lambda: nn.Sequential(ProjectedAttention(), Feedforward()), TOKENS, {"0": [4], "1": [12]}),
}
each_network = pytest.mark.parametrize("name", NETWORKS)


def built(name: str) -> tuple[nn.Module, Tensor]:
    """A network whose normalisation is far from its defaults, and inputs for it."""
    make, shape, _ = NETWORKS[name]
    torch.manual_seed(0)
    network, inputs = make(), torch.randn(3, *shape)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.bias.data, module.running_mean, module.running_var):
                tensor.copy_(torch.rand_like(tensor) + 0.5)
    for parameter in network.parameters():  # heads start at zero in some networks
        parameter.data.add_(0.01 * torch.randn_like(parameter))
    return network.eval(), inputs


def blocks(network: nn.Module, inputs: Tensor) -> list[NetworkBlock]:
    return list(survey(network, find_blocks(network, REGISTRY), inputs).blocks)


@each_network
def test_blocks_are_found_with_their_hidden_units(name: str) -> None:
    network, inputs = built(name)
    sizes_of = {(b.kind, b.path): list(b.sizes.values()) for b in blocks(network, inputs)}
    if name == "vgg":  # its classifier is a block of its own, of Linear layers
        assert sizes_of.pop(("linear_chain", "")) == [9]
    assert {path: sizes for (_, path), sizes in sizes_of.items()} == NETWORKS[name][2]


@each_network
def test_the_adapters_block_in_the_place_of_the_own_changes_nothing(name: str) -> None:
    network, inputs = built(name)
    output_before = network(inputs).detach()
    for block in blocks(network, inputs):
        block.replace(network, block.adapter, block.params(network))
    torch.testing.assert_close(network(inputs), output_before, rtol=1e-4, atol=1e-5)


@each_network
def test_hidden_units_are_symmetric_as_declared(name: str) -> None:
    from paramtrans.ops.symmetry import random_orbit

    network, inputs = built(name)
    output_before = network.double()(inputs.double()).detach()
    for block in blocks(network, inputs.double()):
        params = block.params(network)
        moved = random_orbit(params, block.adapter.spec, torch.Generator().manual_seed(1))
        assert any(not torch.equal(moved[key], params[key]) for key in params)
        block.replace(network, block.adapter, moved)
    torch.testing.assert_close(network(inputs.double()), output_before, rtol=1e-5, atol=1e-5)


@each_network
def test_a_narrowed_block_fits_its_place(name: str) -> None:
    network, inputs = built(name)
    parameters_before = sum(p.numel() for p in network.parameters())
    for block in blocks(network, inputs):
        smaller = block.adapter.with_sizes({group: size // 2 for group, size in block.sizes.items()})
        assert [g.size for g in smaller.spec.symmetries] == [size // 2 for size in block.sizes.values()]
        block.replace(network, smaller, None)
    assert network(inputs).isfinite().all() and sum(p.numel() for p in network.parameters()) < parameters_before


def test_a_block_that_computes_something_else_is_refused_with_the_reason() -> None:
    network = nn.Sequential(Feedforward(), Gated())
    looked = survey(network.eval(), find_blocks(network, REGISTRY), torch.randn(3, 6))
    assert [block.path for block in looked.blocks] == ["0"]
    assert "computes something else than linear_chain" in looked.refused["1"]


@pytest.mark.parametrize(("name", "closing"), [("bert", "output.LayerNorm"), ("encoder, norm last", "norm2")])
def test_a_normalisation_behind_the_sum_belongs_to_the_block_and_is_held_to_what_it_gives(
    name: str, closing: str
) -> None:
    network, inputs = built(name)
    [block] = blocks(network, inputs)
    assert block.closing == closing
    [block_before] = blocks(*built("encoder, norm first"))
    assert block_before.closing is None and block_before.layers["norm"] == "norm2"

    class Scaled(nn.LayerNorm):
        def forward(self, input: Tensor) -> Tensor:
            return 2 * super().forward(input)

    network.set_submodule(closing, Scaled(6))
    looked = survey(network.eval(), find_blocks(network, REGISTRY), inputs)
    assert not looked.blocks and "computes something else" in looked.refused[""]


def test_attention_with_a_mask_is_refused() -> None:
    network = nn.Sequential(ProjectedAttention(), Causal())
    looked = survey(network.eval(), find_blocks(network, REGISTRY), torch.randn(3, 5, 6))
    assert [block.path for block in looked.blocks] == ["0"]
    assert "computes something else than heads" in looked.refused["1"]


def test_a_block_that_is_passed_twice_or_shares_parameters_is_refused() -> None:
    layer = Feedforward()
    twice = nn.Sequential(layer, layer, Feedforward())
    looked = survey(twice.eval(), find_blocks(twice, REGISTRY), torch.randn(3, 6))
    assert [block.path for block in looked.blocks] == ["2"] and "2 times" in looked.refused["0"]
    tied = nn.Sequential(Feedforward(), Feedforward())
    tied[1].fc1.weight = tied[0].fc1.weight
    looked = survey(tied.eval(), find_blocks(tied, REGISTRY), torch.randn(3, 6))
    assert not looked.blocks and "shares parameters" in looked.refused["1"]


def test_the_pattern_chooses_blocks() -> None:
    network, _ = built("resnet")
    assert [b.path for b in find_blocks(network, REGISTRY, "layer1.*, layer3*")] == ["layer1.0", "layer1.1", "layer3.0"]


@pytest.mark.parametrize(
    "module",
    [
        nn.Sequential(nn.Conv2d(4, 8, 3, groups=2), nn.ReLU(), nn.Conv2d(8, 4, 3)),
        nn.Sequential(nn.Conv2d(4, 8, 3, padding_mode="circular"), nn.ReLU(), nn.Conv2d(8, 4, 3)),
        nn.Sequential(nn.Conv2d(4, 8, (3, 1)), nn.ReLU(), nn.Conv2d(8, 4, 3)),
        nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 4)),
        nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 4)),
        nn.Sequential(nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8, track_running_stats=False), nn.Conv2d(8, 4, 3)),
        nn.Bilinear(2, 3, 4),
    ],
    ids=["groups", "circular padding", "oblong kernel", "two activations", "no activation", "no statistics", "other"],
)
def test_what_no_adapter_knows_is_left_alone(module: nn.Module) -> None:
    assert find_blocks(module, REGISTRY) == []
