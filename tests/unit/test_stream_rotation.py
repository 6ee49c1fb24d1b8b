"""Residual streams in the basis of their principal axes: the network computes what it did, most energy first."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from paramtrans.errors import DataError, SpecMismatch
from paramtrans.networks.forward.activations import arguments, call, first_examples
from paramtrans.networks.forward.outputs import tensors_in
from paramtrans.networks.graph.proof import named_tensors
from paramtrans.networks.stream.axes import principal_axes, second_moments
from paramtrans.networks.stream.modules import ModuleChange, repeat
from paramtrans.networks.stream.rotation import Rotated, rotated
from paramtrans.plugins.manager import components

VALUES = torch.randn(16, 5, 3, generator=torch.Generator().manual_seed(0))
TOKENS = torch.randint(3, 20, (8, 6), generator=torch.Generator().manual_seed(0))
IMAGES = torch.randn(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def uneven(network: nn.Module) -> nn.Module:
    """A network in eval mode none of whose parameters is constant: norms have weights that matter."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return network.eval()


class Block(nn.Module):
    """A pre-norm branch."""

    def __init__(self, norm: nn.Module, bias: bool = True) -> None:
        super().__init__()
        self.norm, self.up, self.down = norm, nn.Linear(8, 12, bias=bias), nn.Linear(12, 8, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(F.silu(self.up(self.norm(x))))


class OffsetNorm(nn.Module):
    """An RMSNorm written out, which multiplies by one more than its weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(8))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * (1 + self.weight)


class EarlyEpsilon(OffsetNorm):
    """An RMSNorm with its epsilon in another place."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt((x.pow(2) + 1e-6).mean(-1, keepdim=True)) * (1 + self.weight)


class Doubled(nn.Module):
    """A table that the code makes, of the width of the stream but not in it."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.tokens = nn.Parameter(torch.zeros(20, 8)), Tokens(lambda: nn.RMSNorm(8))

    def forward(self, x: Tensor) -> Tensor:
        return self.tokens(x) + F.embedding(x, self.table * 2).sum(-1, keepdim=True)


class Tokens(nn.Module):
    """Embeddings and positions, two blocks, and a head that may be tied to the embeddings."""

    def __init__(self, norm: Any, tied: bool = False, bias: bool = True) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(20, 8), nn.Linear(8, 20, bias=False)
        self.positions = nn.Parameter(torch.zeros(1, 6, 8))
        self.blocks = nn.Sequential(Block(norm(), bias), Block(norm(), bias))
        self.norm = norm()
        if tied:
            self.head.weight = self.embed.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(self.embed(x) + self.positions)))


class Scaled(nn.Module):
    """What a branch adds is scaled unit by unit, as LayerScale does."""

    def __init__(self, also_read: bool = False) -> None:
        super().__init__()
        self.enter, self.norm, self.leave = nn.Linear(3, 8), nn.RMSNorm(8), nn.Linear(8, 4)
        self.branch, self.gamma, self.also_read = nn.Linear(8, 8), nn.Parameter(torch.ones(8)), also_read

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        added = self.branch(self.norm(x))
        x = x + added * self.gamma
        return self.leave(self.norm(x + added if self.also_read else x))


def around(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(3, 8), *layers, nn.Linear(8, 4))


def turned(network: nn.Module, inputs: Any) -> Rotated:
    """A rotated network; the original is as it was, and both give the same for all inputs."""
    before = copy.deepcopy(network.state_dict())
    positional, named = arguments(first_examples(inputs, 2))
    result = rotated(network, (positional, named), [first_examples(inputs, 4), inputs])
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    with torch.no_grad():
        given, wanted = (tensors_in(call(model, inputs)) for model in (result.network, network))
    for output, wanted_output in zip(given, wanted, strict=True):
        difference = float((output - wanted_output).abs().max() / wanted_output.abs().max())
        assert difference < 1e-4 and result.difference < 1e-4
    return result


def moments(result: Rotated, inputs: Any) -> Tensor:
    """Second moments of what the readers of a rotated stream are given."""
    tensors = named_tensors(result.network)
    readers = {id(tensors[name]): "" for name, axis in result.streams[0].axes if axis == 1 and tensors[name].ndim == 2}
    return second_moments(result.network, [inputs], readers, {"": len(result.streams[0].energies)})[""]


@pytest.mark.parametrize(
    ("network", "inputs", "changes"),
    [
        (lambda: around(Block(nn.RMSNorm(8)), Block(nn.RMSNorm(8)), nn.RMSNorm(8)), VALUES, []),
        (lambda: around(Block(nn.LayerNorm(8)), nn.LayerNorm(8)), VALUES, ["1.norm rms_norm", "2 rms_norm"]),
        (lambda: around(Block(OffsetNorm()), OffsetNorm()), VALUES, []),
        (lambda: Tokens(OffsetNorm, tied=True), TOKENS, ["head untied"]),
        (Doubled, TOKENS, []),
        (Scaled, VALUES, []),
    ],
)
def test_outputs_are_the_same_and_energies_decrease(network: Any, inputs: Tensor, changes: list[str]) -> None:
    result = turned(uneven(network()), inputs)
    energies = result.streams[0].energies
    assert [f"{change.module} {change.kind}" for change in result.changes] == changes
    assert energies.shape == (8,) and bool((energies.diff() <= 1e-9).all()) and energies[0] > 1.2
    # Norms have no weights left that tell units apart.
    torch.testing.assert_close(float(energies.sum()), 8.0)


def test_first_axes_hold_more_than_any_units_of_the_original() -> None:
    network = uneven(around(Block(nn.RMSNorm(8)), Block(nn.RMSNorm(8)), nn.RMSNorm(8)))
    entering: list[Tensor] = []
    with torch.no_grad():
        handles = [
            module.register_forward_pre_hook(lambda _, args: entering.append(args[0].flatten(0, 1)))
            for module in network.modules()
            if isinstance(module, nn.RMSNorm)
        ]
        network(VALUES)
        for handle in handles:
            handle.remove()
    rows = torch.cat([F.rms_norm(value.double(), [8]) for value in entering])
    units = rows.square().mean(0).sort(descending=True).values.cumsum(0)
    result = rotated(network, ((VALUES[:2],), {}), [VALUES])
    axes = result.streams[0].energies.cumsum(0)
    assert bool((axes[:7] > units[:7] + 1e-3).all())
    # The rotated network's own readers see these energies, and nothing between two axes.
    expected = result.streams[0].energies.diag()
    torch.testing.assert_close(moments(result, VALUES), expected, rtol=1e-4, atol=1e-5)


def test_principal_axes_are_orthonormal_and_the_same_for_any_sign() -> None:
    products = torch.randn(6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.double)
    energies, axes = principal_axes(products @ products.mT)
    torch.testing.assert_close(axes @ energies.diag() @ axes.mT, products @ products.mT)
    torch.testing.assert_close(axes.mT @ axes, torch.eye(6, dtype=torch.double))
    assert bool((axes.gather(0, axes.abs().argmax(0, keepdim=True)) > 0).all())


def test_positions_that_are_kept_with_the_network_are_rotated() -> None:
    assert ("positions", 1) in turned(uneven(Sinusoids(True)), VALUES).streams[0].axes


def test_a_centred_stream_has_an_axis_with_nothing_along_it() -> None:
    result = turned(uneven(around(Block(nn.LayerNorm(8)), nn.LayerNorm(8))), VALUES)
    assert float(result.streams[0].energies[-1]) < 1e-10
    assert all(type(result.network.get_submodule(path)) is nn.RMSNorm for path in ("1.norm", "2"))


def test_tied_embeddings_stay_tied_where_the_last_norm_tells_no_units_apart() -> None:
    network = uneven(Tokens(lambda: nn.RMSNorm(8), tied=True))
    with torch.no_grad():
        network.get_parameter("norm.weight").fill_(1.5)
    result = turned(network, TOKENS)
    assert result.changes == () and result.network.head.weight is result.network.embed.weight  # type: ignore[union-attr]


def test_layers_without_a_bias_are_given_that_of_a_norm() -> None:
    result = turned(uneven(Tokens(lambda: nn.LayerNorm(8), tied=True, bias=False)), TOKENS)
    kinds = {(change.module, change.kind) for change in result.changes}
    assert {("head", "untied"), ("head", "bias"), ("blocks.0.up", "bias")} <= kinds
    assert ("blocks.0.down", "bias") not in kinds


def encoder(norm_first: bool = True) -> nn.Module:
    layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True, norm_first=norm_first)
    return around(nn.TransformerEncoder(layer, 1, nn.LayerNorm(8), enable_nested_tensor=False))


def test_attention_of_pytorch_is_rotated_and_takes_no_fast_path_that_subtracts_means() -> None:
    result = turned(uneven(encoder()), VALUES)
    assert ("1.layers.0.self_attn.in_proj_weight", 1) in result.streams[0].axes
    assert type(result.network.get_submodule("1.layers.0.self_attn")) is nn.MultiheadAttention


def test_flags_hooks_and_precision_stay() -> None:
    network = uneven(around(Block(nn.LayerNorm(8)), nn.LayerNorm(8))).bfloat16()
    network.get_submodule("1").train()
    network.get_parameter("1.up.weight").requires_grad_(False)
    calls: list[int] = []
    network.get_submodule("1.norm").register_forward_pre_hook(lambda *_: calls.append(1))
    # A hook before the norm would show the stream, so that it stays; one of a module that is not in it does not.
    with pytest.raises(SpecMismatch, match="free of outputs"):
        rotated(network, ((VALUES[:2].bfloat16(),), {}), [VALUES.bfloat16()])
    network.get_submodule("1.norm")._forward_pre_hooks.clear()
    network.register_forward_hook(lambda *_: calls.append(2))
    result = rotated(network, ((VALUES[:2].bfloat16(),), {}), [VALUES.bfloat16()])
    calls.clear()
    with torch.no_grad():
        given, wanted = result.network(VALUES.bfloat16()), network(VALUES.bfloat16())
    assert calls == [2, 2] and given.dtype == torch.bfloat16
    torch.testing.assert_close(given, wanted, rtol=0.05, atol=0.05)
    flags = [module.training for module in network.modules()]
    assert [module.training for module in result.network.modules()] == flags
    gradients = {name: parameter.requires_grad for name, parameter in result.network.named_parameters()}
    assert not gradients.pop("1.up.weight") and all(gradients.values())
    assert {parameter.dtype for parameter in result.network.parameters()} == {torch.bfloat16}


class PostNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.enter, self.branch, self.norm, self.leave = (
            nn.Linear(3, 8),
            nn.Linear(8, 8),
            nn.LayerNorm(8),
            nn.Linear(8, 4),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.enter(x))
        return self.leave(self.norm(x + self.branch(x)))


class Rectified(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.enter, self.branch, self.leave = nn.Linear(3, 8), nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        return self.leave(F.relu(x + self.branch(x)))


class Own(nn.Module):
    """An embedding that is the head as well, in one module."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.block, self.norm = nn.Embedding(20, 8), Block(nn.RMSNorm(8)), nn.RMSNorm(8)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(self.norm(self.block(self.embed(x))), self.embed.weight)


class Sinusoids(nn.Module):
    """Positions that the code makes."""

    def __init__(self, kept: bool | None = None) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(3, 8), nn.Linear(8, 4)
        self.blocks = nn.Sequential(Block(nn.RMSNorm(8)), nn.RMSNorm(8))
        self.kept = kept
        if kept is not None:
            self.register_buffer("positions", torch.randn(5, 8, generator=torch.Generator().manual_seed(0)), kept)

    def forward(self, x: Tensor) -> Tensor:
        positions = self.positions if self.kept is not None else torch.arange(5)[:, None] * torch.arange(8).sin()
        return self.leave(self.blocks(self.enter(x) + positions))


@pytest.mark.parametrize(
    ("network", "inputs", "why"),
    [
        (PostNorm, VALUES, "result of a norm goes back into the stream.*test_stream_rotation.py"),
        (lambda: encoder(norm_first=False), VALUES, "result of a norm goes back into the stream"),
        (Rectified, VALUES, "relu works on each unit"),
        (lambda: around(Block(EarlyEpsilon()), EarlyEpsilon()), VALUES, "add adds the same to all units"),
        (Own, TOKENS, "embed.weight is read behind a norm with weights"),
        (Sinusoids, VALUES, "numbers that its code makes"),
        (lambda: Sinusoids(False), VALUES, "positions goes into the stream"),
        (lambda: Scaled(also_read=True), VALUES, "result of a norm goes back"),
        (lambda: around(Block(nn.LayerNorm(8))), VALUES, "read with its mean here"),
        (lambda: nn.Sequential(nn.Linear(3, 8), Block(nn.RMSNorm(8))), VALUES, "free of outputs"),
        (lambda: nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 4)), VALUES, "free of outputs"),
    ],
)
def test_streams_that_a_rotation_would_change_are_refused_by_reason(network: Any, inputs: Tensor, why: str) -> None:
    with pytest.raises(SpecMismatch, match=why):
        rotated(uneven(network()), ((inputs[:2],), {}), [inputs])


def test_changes_are_repeated_on_a_fresh_network() -> None:
    network = uneven(Tokens(lambda: nn.LayerNorm(8), tied=True, bias=False))
    result = rotated(network, ((TOKENS[:2],), {}), [TOKENS])
    fresh = Tokens(lambda: nn.LayerNorm(8), tied=True, bias=False).eval()
    repeat(fresh, result.changes, components())
    fresh.load_state_dict(result.network.state_dict())
    with torch.no_grad():
        assert torch.equal(fresh(TOKENS), result.network(TOKENS))


@pytest.mark.parametrize("change", [ModuleChange("nowhere", "bias"), ModuleChange("0", "rms_norm")])
def test_changes_of_modules_that_are_not_there_are_refused(change: ModuleChange) -> None:
    with pytest.raises(DataError, match=change.module):
        repeat(around(nn.RMSNorm(8)), [change], components())
