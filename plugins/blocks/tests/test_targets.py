"""Targets for parts of real networks: what their closed forms write is exact where the part is of their form."""

from __future__ import annotations

import pytest
import torch
from paramtrans_blocks.positions import nothing_before
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

import paramtrans

NO_STEPS = {"steps": 0}


class Encoder(nn.Module):
    """A network whose attention has the layers of BERT's, by BERT's names."""

    def __init__(self, count: int = 4) -> None:
        super().__init__()
        self.attention = Bert(count)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.attention(tokens)


class Bert(nn.Module):
    def __init__(self, count: int) -> None:
        super().__init__()
        self.heads, self.self, self.output = count, nn.Module(), nn.Module()
        self.self.query, self.self.key, self.self.value = (nn.Linear(8, 8) for _ in range(3))
        self.self.num_attention_heads, self.self.attention_head_size = count, 8 // count
        self.output.dense, self.output.LayerNorm = nn.Linear(8, 8), nn.LayerNorm(8)

    def forward(self, tokens: Tensor) -> Tensor:
        query, key, value = (
            layer(tokens).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer in (self.self.query, self.self.key, self.self.value)
        )
        mixed = nn.functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        return self.output.LayerNorm(self.output.dense(mixed) + tokens)


@pytest.fixture
def tokens() -> Tensor:
    return torch.randn(12, 5, 8, generator=torch.Generator().manual_seed(0))


def translated(network: nn.Module, target: str, inputs: Tensor) -> nn.Module:
    path = next(name for name, _ in network.named_children())
    small = paramtrans.translate(network.eval(), to={path: target}, options=NO_STEPS, calibrate=inputs)
    [block] = small.paramtrans_blocks
    assert block.started == "closed form"
    return small


@pytest.mark.parametrize("stride", [1, 2])
def test_convolutions_of_rank_one_become_depthwise_separable_exactly(stride: int) -> None:
    torch.manual_seed(0)
    out = 4 * stride
    down = nn.Sequential(nn.Conv2d(4, out, 1, stride, bias=False), nn.BatchNorm2d(out)) if stride > 1 else None
    network = nn.Sequential(BasicBlock(4, out, stride, down))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, -1, 1)
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
            kernels, numbers = torch.randn(1, module.in_channels, 3, 3), torch.randn(module.out_channels, 1, 1, 1)
            module.weight.data = kernels * numbers * torch.randn(1, module.in_channels, 1, 1)
    images = torch.randn(8, 4, 6, 6)
    small = translated(network, "depthwise_separable", images)
    torch.testing.assert_close(small(images), network(images), rtol=1e-4, atol=1e-4)


def test_a_single_convolution_becomes_a_depthwise_separable_one() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 5, 5, stride=2, padding=2))
    network[0].weight.data = torch.randn(1, 3, 5, 5) * torch.randn(5, 3, 1, 1)
    images = torch.randn(8, 3, 8, 8)
    torch.testing.assert_close(
        translated(network, "depthwise_separable", images)(images), network(images), rtol=1e-4, atol=1e-4
    )


def test_heads_that_are_alike_share_keys_and_values_exactly(tokens: Tensor) -> None:
    torch.manual_seed(0)
    network = Encoder()
    for layer in (network.attention.self.key, network.attention.self.value):
        layer.weight.data = layer.weight.data.view(2, 2, 2, 8)[:, :1].expand(2, 2, 2, 8).reshape(8, 8)
        layer.bias.data = layer.bias.data.view(2, 2, 2)[:, :1].expand(2, 2, 2).reshape(8)
    small = translated(network, "grouped_query?key_heads=2", tokens)
    torch.testing.assert_close(small(tokens), network(tokens), rtol=1e-4, atol=1e-5)
    assert small.attention.key.out_features == 4


def test_keys_and_values_of_low_rank_become_latent_exactly(tokens: Tensor) -> None:
    torch.manual_seed(0)
    network, thin = Encoder(), torch.randn(3, 8)
    for layer in (network.attention.self.key, network.attention.self.value):
        layer.weight.data = torch.randn(8, 3) @ thin / 4
    small = translated(network, "latent_attention?rank=3", tokens)
    torch.testing.assert_close(small(tokens), network(tokens), rtol=1e-4, atol=1e-4)


def test_linear_attention_is_the_softmax_where_its_window_holds_all_positions(tokens: Tensor) -> None:
    torch.manual_seed(0)
    network = Encoder()
    small = translated(network, "linear_attention?window=4", tokens)
    torch.testing.assert_close(small(tokens), network(tokens), rtol=1e-4, atol=1e-5)
    narrower = translated(network, "linear_attention?window=1", tokens)
    assert (narrower(tokens) - network(tokens)).abs().max() > 1e-3


def test_the_two_forms_of_linear_attention_are_the_same_without_a_window(tokens: Tensor) -> None:
    """Sums over features first, or weights of all positions first."""
    torch.manual_seed(0)
    network = Encoder()
    block = translated(network, "linear_attention", tokens).attention
    query, key, value = (
        layer(tokens).unflatten(-1, (4, -1)).transpose(1, 2) for layer in (block.query, block.key, block.value)
    )
    features = [torch.cat([x.softmax(-1), (-x).softmax(-1)], -1) for x in (query, key)]
    weights = features[0] @ features[1].mT
    torch.testing.assert_close(
        block.mix(tokens, nothing_before), weights / weights.sum(-1, keepdim=True) @ value, rtol=1e-4, atol=1e-5
    )


def test_a_bottleneck_fits_strides_and_channels() -> None:
    torch.manual_seed(0)
    down = nn.Sequential(nn.Conv2d(4, 8, 1, 2, bias=False), nn.BatchNorm2d(8))
    network = nn.Sequential(BasicBlock(4, 8, 2, down)).eval()
    small = translated(network, "bottleneck", torch.randn(8, 4, 6, 6))
    [block] = small.paramtrans_blocks
    assert block.target["stride"] == 2 and block.target["skip"] == "projection" and block.target["final"] == "relu"


def test_a_block_that_needs_a_bottleneck_alone_becomes_one_exactly() -> None:
    """Two of four channels say the others, two hidden units count, and the last convolution is a 1×1."""
    torch.manual_seed(0)
    network = nn.Sequential(BasicBlock(4, 4))
    network[0].conv2 = nn.Conv2d(4, 4, 1, bias=False)
    network[0].conv2.weight.data[:, 2:] = 0
    images = torch.einsum("oc,nchw->nohw", torch.rand(4, 2), torch.rand(8, 2, 6, 6))
    small = translated(network, "bottleneck", images)
    torch.testing.assert_close(small(images), network(images), rtol=1e-3, atol=1e-3)


def test_a_linear_layer_of_low_rank_becomes_two_exactly() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 9), nn.ReLU())
    network[0].weight.data = torch.randn(9, 2) @ torch.randn(2, 6)
    inputs = torch.randn(8, 3, 6)
    small = translated(network, "low_rank_linear?rank=2", inputs)
    torch.testing.assert_close(small(inputs), network(inputs), rtol=1e-4, atol=1e-4)


def test_convolutions_of_low_rank_become_thin_ones_exactly() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(BasicBlock(4, 4))
    for layer in (network[0].conv1, network[0].conv2):
        layer.weight.data = (torch.randn(4, 2) @ torch.randn(2, 36) / 4).view(4, 4, 3, 3)
    images = torch.randn(8, 4, 6, 6)
    small = translated(network, "low_rank_conv?rank=2", images)
    torch.testing.assert_close(small(images), network(images), rtol=1e-4, atol=1e-4)
    assert small.paramtrans_blocks[0].parameters == (2 * 144 + 16, 2 * (72 + 8 + 4))


@pytest.mark.parametrize(("channels", "out"), [(6, 9), (9, 3)])
def test_a_layer_of_monarch_form_is_found_again_exactly(channels: int, out: int) -> None:
    torch.manual_seed(0)
    registry = paramtrans.components()
    monarch = registry.create("block_adapter", "monarch", channels=channels, out=out, blocks=3).module()
    network = nn.Sequential(nn.Linear(channels, out))
    with torch.no_grad():
        network[0].weight.copy_((monarch(torch.eye(channels)) - monarch.bias).T)
    inputs = torch.randn(8, 4, channels)
    small = translated(network, "monarch?blocks=3", inputs)
    torch.testing.assert_close(small(inputs), network(inputs), rtol=1e-4, atol=1e-4)


def test_attention_that_takes_means_becomes_a_convolution_exactly(tokens: Tensor) -> None:
    """Where keys are alike at all positions, each gets the mean; a kernel that reaches them all takes the sum."""
    torch.manual_seed(0)
    network = Encoder()
    network.attention.self.key.weight.data.zero_()
    small = translated(network, "conv_mixer?reach=4", tokens)
    assert (small(tokens) - network(tokens)).abs().max() > 1e-3
    with torch.no_grad():
        small.attention.kernel.fill_(2 / 5)  # five positions are there, of nine in reach
        small.attention.gate.weight.zero_()
        small.attention.gate.bias.zero_()
    torch.testing.assert_close(small(tokens), network(tokens), rtol=1e-4, atol=1e-5)


def test_a_gated_block_takes_the_place_of_one_that_is_not_read_off_and_fits_it() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Sequential(nn.Linear(6, 8), nn.Mish(), nn.Linear(8, 6))).eval()
    inputs = torch.randn(64, 3, 6)
    small = paramtrans.translate(network, to={"0": "gated_mlp"}, options={"steps": 150}, calibrate=inputs)
    [block] = small.paramtrans_blocks
    assert block.feature_error < block.start_error / 3


@pytest.mark.parametrize("last", [True, False])
def test_a_block_that_adds_a_linear_map_becomes_one_exactly(last: bool) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(6, 6) if last else nn.Conv2d(6, 6, 1)
    inputs = torch.randn(16, 5, 6) if last else torch.randn(16, 6, 3, 3)

    class Adding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = layer

        def forward(self, x: Tensor) -> Tensor:
            return x + self.inner(x)

    network = nn.Sequential(Adding())
    small = translated(network, "linear_map", inputs)
    assert small.paramtrans_blocks[0].target == {"channels": 6, "last": last}
    torch.testing.assert_close(small(inputs), network(inputs), rtol=1e-3, atol=1e-3)


def test_channels_of_a_map_as_wide_as_it_has_channels_are_behind_the_examples() -> None:
    torch.manual_seed(0)
    network, inputs = nn.Sequential(nn.Sequential(nn.Conv2d(6, 6, 1))), torch.randn(32, 6, 6, 6)
    small = translated(network, "linear_map", inputs)
    assert small.paramtrans_blocks[0].target == {"channels": 6, "last": False}
    torch.testing.assert_close(small(inputs), network(inputs), rtol=1e-3, atol=1e-3)


def test_a_linear_map_comes_nearer_than_nothing_in_place_of_a_block() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)).eval()
    inputs = torch.randn(64, 5, 8)
    small = translated(network, "linear_map", inputs)
    others = torch.randn(64, 5, 8)
    wanted = network(others)
    assert (small(others) - wanted).square().mean() < (others - wanted).square().mean() / 2


def test_a_linear_map_takes_the_place_of_no_block_of_another_shape() -> None:
    network = nn.Sequential(nn.Sequential(nn.Linear(6, 4), nn.ReLU())).eval()
    with pytest.raises(paramtrans.SpecMismatch, match="of the same shape"):
        paramtrans.translate(network, to={"0": "linear_map"}, calibrate=torch.randn(8, 6))
