"""What parts of networks compute, read off them by running them: attention and convolutions, whatever their names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from paramtrans_blocks.positions import rotated
from paramtrans_blocks.source_attention import attention_of
from paramtrans_blocks.source_convolutions import Chain, convolutions_of
from torch import Tensor, nn
from torch.nn.functional import conv2d, relu, scaled_dot_product_attention
from torchvision.models.resnet import BasicBlock

from paramtrans import Part
from paramtrans.networks.parts.finding import find_parts


class Around(nn.Module):
    """A network that is one part."""

    def __init__(self, part: nn.Module, **named: Any) -> None:
        super().__init__()
        self.part, self.named = part, named

    def forward(self, x: Tensor) -> Tensor:
        output = self.part(x, **self.named)
        return output[0] if isinstance(output, tuple) else output  # type: ignore[no-any-return]


def part_of(module: nn.Module, inputs: Tensor, **named: Any) -> Part:
    [network_part], refused = find_parts(Around(module, **named).eval(), ["part"], inputs)
    assert not refused
    return network_part.part


class Packed(nn.Module):
    """One layer for queries, keys and values; changed in one respect by each of the options."""

    def __init__(
        self,
        key_heads: int = 4,
        scale: float | None = None,
        causal: bool = False,
        norm_before: bool = False,
        norm_behind: bool = False,
        adds: bool = False,
        queries: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 8 + 4 * key_heads, bias=False), nn.Linear(8, 8)
        self.key_heads, self.scale, self.causal, self.adds = key_heads, scale, causal, adds
        self.before = nn.LayerNorm(8) if norm_before else nn.Identity()
        self.behind = nn.LayerNorm(8, 1e-3) if norm_behind else nn.Identity()
        self.queries = queries or nn.Identity()
        for parameter in self.parameters():
            nn.init.normal_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.a(self.before(x)).split([8, *[2 * self.key_heads] * 2], -1)
        query = self.queries(query.unflatten(-1, (4, 2)).transpose(1, 2))
        key, value = (t.unflatten(-1, (self.key_heads, 2)).transpose(1, 2) for t in (key, value))
        mixed = scaled_dot_product_attention(
            query,
            key,
            value,
            is_causal=self.causal,
            scale=self.scale,
            enable_gqa=self.key_heads < 4,
        )
        output = self.b(mixed.transpose(1, 2).flatten(2))
        normalised: Tensor = self.behind(output + x if self.adds else output)
        return normalised


class Turned(nn.Module):
    """Rotary positions."""

    def forward(self, queries: Tensor) -> Tensor:
        return rotated(queries, [1.0], neighbours=False)


KNOWN: dict[str, Callable[[], nn.Module]] = {
    "packed": Packed,
    "grouped queries": lambda: Packed(key_heads=2),
    "another scale": lambda: Packed(scale=0.3),
    "with a skip": lambda: Packed(adds=True),
    "normalised behind a skip": lambda: Packed(adds=True, norm_behind=True),
    "normalised behind": lambda: Packed(norm_behind=True),
    "queries scaled": lambda: Packed(queries=nn.Linear(2, 2)),
    "causal": lambda: Packed(causal=True),
}
UNKNOWN: dict[str, Callable[[], nn.Module]] = {
    "queries alone turned": lambda: Packed(queries=Turned()),
    "normalised before": lambda: Packed(norm_before=True),
    "queries normalised": lambda: Packed(queries=nn.LayerNorm(2)),
    "no attention": lambda: nn.Linear(8, 8),
    "twice": lambda: nn.Sequential(Packed(), Packed()),
}


@pytest.mark.parametrize("make", KNOWN.values(), ids=KNOWN)
def test_attention_is_read_off_what_it_computes(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    module, tokens = make(), torch.randn(3, 5, 8)
    source = attention_of(part_of(module, tokens))
    assert source is not None
    adapter, params = source
    assert (adapter.options.heads, adapter.options.width) == (4, 2)
    assert adapter.options.skip == ("identity" if getattr(module, "adds", False) else "none")
    block = adapter.module().eval()
    block.load_state_dict({name: tensor[0] for name, tensor in params.items()})
    others = torch.randn(3, 7, 8)
    torch.testing.assert_close(block(others), module(others), rtol=1e-3, atol=1e-4)


def test_pytorchs_own_attention_is_read_off_too() -> None:
    torch.manual_seed(0)
    layer, tokens = nn.MultiheadAttention(8, 2, batch_first=True), torch.randn(3, 5, 8)

    class Called(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: Tensor) -> Tensor:
            output: Tensor = self.layer(x, x, x, need_weights=False)[0]
            return output

    source = attention_of(part_of(Called(), tokens))
    assert source is not None and source[0].options.heads == 2
    torch.testing.assert_close(source[1]["query.weight"][0], layer.in_proj_weight[:8].detach())


@pytest.mark.parametrize("make", UNKNOWN.values(), ids=UNKNOWN)
def test_what_is_no_such_attention_is_none(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    assert attention_of(part_of(make(), torch.randn(3, 5, 8))) is None


class Functional(nn.Module):
    """A residual block in functional style, with a shortcut of another name."""

    def __init__(self, out: int, groups: int = 1, kernel: tuple[int, int] = (3, 3), activation: Any = relu) -> None:
        super().__init__()
        self.activation, self.groups = activation, groups
        padding = (kernel[0] // 2, kernel[1] // 2)
        self.first = nn.Conv2d(4, out, kernel, padding=padding, groups=groups)
        self.norm = nn.BatchNorm2d(out, eps=1e-3)
        self.weight = nn.Parameter(torch.randn(out, out, 3, 3))
        self.shortcut = nn.Sequential(nn.Conv2d(4, out, 1, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        y = self.activation(self.norm(self.first(x)))
        y = conv2d(y, self.weight, padding=1)
        y += self.shortcut(x)
        return relu(y)


def run(chain: Chain, x: Tensor) -> Tensor:
    """What a chain computes."""
    y = x
    for layer in chain.layers:
        weight, bias = layer.folded()
        y = conv2d(y, weight, bias, padding=weight.shape[-1] // 2)
        y = relu(y) if layer.rectified else y
    if chain.skip is None:
        return y
    for layer in chain.skip:
        x = conv2d(x, *layer.folded())
    return relu(x + y)


CHAINS: dict[str, Callable[[], nn.Module]] = {
    "torchvision": lambda: BasicBlock(4, 4),
    "functional": lambda: Functional(6),
    "sequential": lambda: nn.Sequential(nn.Conv2d(4, 6, 3, padding=1), nn.ReLU(), nn.Dropout(), nn.Conv2d(6, 5, 1)),
    "alone": lambda: nn.Conv2d(4, 6, 5, padding="same"),
}
NO_CHAINS: dict[str, Callable[[], nn.Module]] = {
    "groups": lambda: Functional(8, groups=2),
    "oblong": lambda: Functional(4, kernel=(3, 1)),
    "no padding": lambda: nn.Conv2d(4, 6, 3),
    "circular": lambda: nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular"),
    "another activation": lambda: Functional(4, activation=torch.sigmoid),
    "pooled": lambda: nn.Sequential(nn.Conv2d(4, 6, 3, padding=1), nn.AvgPool2d(3, 1, 1)),
    "no convolution": lambda: nn.ReLU(),
}


@pytest.mark.parametrize("make", CHAINS.values(), ids=CHAINS)
def test_convolutions_are_read_off_what_is_computed(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    module, images = make(), torch.randn(3, 4, 6, 6)
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for tensor in (norm.weight.data, norm.bias.data, norm.running_mean, norm.running_var):
                tensor.copy_(torch.rand_like(tensor) + 0.5)
    chain = convolutions_of(part_of(module, images))
    assert chain is not None
    torch.testing.assert_close(run(chain, images), module.eval()(images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("make", NO_CHAINS.values(), ids=NO_CHAINS)
def test_what_is_no_such_chain_is_none_or_no_convolution(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    assert convolutions_of(part_of(make(), torch.randn(3, 4, 6, 6))) is None
