"""Feed-forward blocks given to other families: exact where nothing is cut, near where something is."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from paramtrans_blocks.source_feed_forward import feed_forward_of
from torch import Tensor, nn

import paramtrans
from paramtrans.networks.parts.finding import find_parts


class Around(nn.Module):
    """A network with one feed-forward block, gated or plain."""

    def __init__(self, activation: Any, gated: bool, bias: bool, hidden: int = 12) -> None:
        super().__init__()
        self.mlp = Gated(activation, bias, hidden) if gated else Plain(activation, bias, hidden)

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.mlp(x)
        return features + x


class Plain(nn.Module):
    def __init__(self, activation: Any, bias: bool, hidden: int) -> None:
        super().__init__()
        self.inner, self.outer, self.act = nn.Linear(6, hidden, bias), nn.Linear(hidden, 6, bias), activation

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.outer(self.act(self.inner(x)))
        return features


class Gated(nn.Module):
    def __init__(self, activation: Any, bias: bool, hidden: int) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, hidden, bias), nn.Linear(6, hidden, bias), nn.Linear(hidden, 6, bias)
        self.act = activation

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.c(self.b(x) * self.act(self.a(x)))
        return features


GELU = nn.functional.gelu
SOURCES = {
    "plain": (nn.ReLU(), False, True),
    "plain, without biases": (GELU, False, False),
    "gated": (nn.SiLU(), True, False),
    "gated, with biases": (nn.functional.silu, True, True),
}


@pytest.fixture
def tokens() -> Tensor:
    return torch.randn(40, 5, 6, generator=torch.Generator().manual_seed(0))


def made(network: nn.Module, target: str, tokens: Tensor) -> nn.Module:
    small = paramtrans.translate(network.eval(), to={"mlp": target}, options={"steps": 0}, calibrate=tokens)
    [block] = small.paramtrans_blocks
    assert block.started == "closed form"
    return small


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_with_all_experts_active_a_mixture_is_the_block(source: tuple[Any, ...], tokens: Tensor) -> None:
    torch.manual_seed(0)
    network = Around(*source)
    small = made(network, "mixture_of_experts?experts=4&active=4", tokens)
    with torch.no_grad():
        torch.testing.assert_close(small(tokens), network(tokens), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(small(tokens), network(tokens), rtol=1e-4, atol=1e-5)


def test_experts_that_work_at_different_positions_are_told_apart(tokens: Tensor) -> None:
    """Half of the units work where the first channel is above zero, the others below; they stand mixed."""
    torch.manual_seed(0)
    network = Around(nn.ReLU(), False, False)
    signs = torch.tensor([1.0, -1.0]).repeat(6)
    network.mlp.inner.weight.data = 0.1 * network.mlp.inner.weight.data
    network.mlp.inner.weight.data[:, 0] = 3 * signs
    tokens[..., 0] += tokens[..., 0].sign()
    small = made(network, "mixture_of_experts?experts=2&active=1", tokens)
    with torch.no_grad():
        torch.testing.assert_close(small(tokens), network(tokens), rtol=1e-4, atol=1e-5)


def test_only_experts_that_are_asked_are_computed(tokens: Tensor) -> None:
    torch.manual_seed(0)
    small = made(Around(nn.SiLU(), True, True), "mixture_of_experts?experts=4&active=1", tokens)
    with torch.no_grad():
        alone = small(tokens)
    torch.testing.assert_close(alone, small(tokens), rtol=1e-4, atol=1e-5)
    with torch.utils.flop_counter.FlopCounterMode(display=False) as asked, torch.no_grad():
        small(tokens)
    with torch.utils.flop_counter.FlopCounterMode(display=False) as every:
        small(tokens)
    assert asked.get_total_flops() < 0.5 * every.get_total_flops()


def test_routed_experts_lose_less_than_any_fixed_ones(tokens: Tensor) -> None:
    torch.manual_seed(0)
    network = Around(nn.ReLU(), False, True, hidden=24)
    small = made(network, "mixture_of_experts?experts=4&active=2", tokens)
    with torch.no_grad():
        errors = [float((small(tokens) - network(tokens)).square().mean())]
        for number in range(4):
            small.mlp.router.weight.zero_()
            small.mlp.router.bias.copy_(torch.arange(4.0).roll(number))
            errors.append(float((small(tokens) - network(tokens)).square().mean()))
    assert errors[0] < 0.8 * min(errors[1:])


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_a_gated_block_with_the_same_activation_is_the_block(source: tuple[Any, ...], tokens: Tensor) -> None:
    torch.manual_seed(0)
    network = Around(*source)
    small = made(network, "gated_mlp?hidden=12", tokens)
    torch.testing.assert_close(small(tokens), network(tokens), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
def test_a_plain_block_stays_as_it_is_and_begins_near_with_fewer_units(tokens: Tensor, bias: bool) -> None:
    torch.manual_seed(0)
    network = Around(GELU, False, bias)
    torch.testing.assert_close(made(network, "linear_chain", tokens)(tokens), network(tokens), rtol=1e-4, atol=1e-5)
    errors = []
    for target in ("linear_chain?activation=silu", "linear_chain?hidden=[6]"):
        errors.append(made(network, target, tokens).paramtrans_blocks[0].start_error)
    assert 0 < errors[0] < 0.05 and 0 < errors[1] < 0.6


def test_another_activation_begins_near_the_block(tokens: Tensor) -> None:
    torch.manual_seed(0)
    network = Around(nn.SiLU(), True, False)
    small = made(network, "gated_mlp?activation=gelu", tokens)
    [block] = small.paramtrans_blocks
    with torch.no_grad():
        small.mlp.down.weight.copy_(network.mlp.c.weight)
        kept = network.mlp(tokens)
        without = float((small.mlp(tokens) - kept).square().mean() / kept.var())
    assert block.start_error < without / 2


NO_FEED_FORWARD = {
    "a layer alone": lambda: nn.Linear(6, 6),
    "three layers": lambda: nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6)),
    "a softmax": lambda: nn.Sequential(nn.Linear(6, 6), nn.Softmax(-1), nn.Linear(6, 6)),
    "normalised": lambda: nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6)),
    "normalised behind": lambda: nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6), nn.LayerNorm(6)),
}


@pytest.mark.parametrize("make", NO_FEED_FORWARD.values(), ids=NO_FEED_FORWARD)
def test_what_is_no_feed_forward_block_is_none(make: Any, tokens: Tensor) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(make()).eval()
    [part], _ = find_parts(network, ["0"], tokens)
    assert feed_forward_of(part.part) is None
