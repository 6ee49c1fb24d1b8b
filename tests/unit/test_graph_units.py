"""Units found in the graphs of networks: hand-written ones of every kind, and real ones at small size."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import paramtrans
from paramtrans.errors import DataError, SpecMismatch, StoreError
from paramtrans.networks.graph import limits
from paramtrans.networks.graph.groups import Analysis, analyse, prove_groups
from paramtrans.networks.graph.inventory import operations_of
from paramtrans.storage import sealed_params


def sequential(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(*layers)


class Mnist(nn.Module):
    """As in PyTorch's own example: functions between the layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 12, 3)
        self.fc1, self.fc2 = nn.Linear(12 * 9, 16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv2(F.relu(self.conv1(x)))), 2)
        return F.log_softmax(self.fc2(F.dropout(F.relu(self.fc1(torch.flatten(x, 1))), training=self.training)), dim=1)


class Gated(nn.Module):
    """SwiGLU around a residual stream."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(6)
        self.gate, self.up, self.down = nn.Linear(6, 16), nn.Linear(6, 16), nn.Linear(16, 6)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        return x + self.down(F.silu(self.gate(h)) * self.up(h))


class Packed(nn.Module):
    """Attention with packed queries, keys and values, as in timm."""

    def __init__(self, heads: int = 4, width: int = 3) -> None:
        super().__init__()
        self.num_heads, self.head_dim = heads, width
        self.qkv, self.proj = nn.Linear(6, 3 * heads * width), nn.Linear(heads * width, 6)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        q, k, v = self.qkv(x).reshape(batch, length, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        return self.proj(mixed.reshape(batch, length, self.num_heads * self.head_dim))


class Excited(nn.Module):
    """Squeeze-and-excitation around a depthwise convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.depth = nn.Conv2d(4, 12, 1), nn.Conv2d(12, 12, 3, padding=1, groups=12)
        self.squeeze, self.excite, self.thin = nn.Conv2d(12, 3, 1), nn.Conv2d(3, 12, 1), nn.Conv2d(12, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = F.hardswish(self.depth(F.relu6(self.wide(x))))
        return x + self.thin(h * torch.sigmoid(self.excite(F.relu(self.squeeze(h.mean((2, 3), keepdim=True))))))


class Dense(nn.Module):
    """DenseNet's concatenations."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 6, 3, padding=1), nn.Conv2d(14, 5, 1)
        self.d = nn.Conv2d(5 + 8, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = F.relu(self.a(x))
        both = torch.cat([a, F.relu(self.b(a))], 1)
        return self.d(torch.cat([self.c(both), a], 1))


class Shared(nn.Module):
    """A layer that is passed twice, and an embedding tied to the output."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.up, self.down = nn.Embedding(11, 6), nn.Linear(6, 10), nn.Linear(10, 6)

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x)
        for _ in range(2):
            h = h + self.down(torch.tanh(self.up(h)))
        return F.linear(h, self.embed.weight)


class Biased(nn.Module):
    """Heads over a bias that the code makes, behind a rotation of packed pairs whose shape is taken from another."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads, self.head_dim = 4, 2
        self.qkv, self.proj = nn.Linear(6, 24), nn.Linear(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        length = x.shape[1]
        q, k, v = (part.transpose(1, 2) for part in self.qkv(x).view(len(x), length, 3, -1, self.head_dim).unbind(2))
        angles = torch.arange(length, dtype=x.dtype)[:, None].expand(length, 2)
        q, k = (
            part * angles.cos() + torch.stack([-part[..., 1:], part[..., :1]], -1).reshape_as(part) for part in (q, k)
        )
        bias = torch.zeros(1, self.num_heads, length, length) + torch.ones(length, length).tril().log()
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=bias).transpose(1, 2)
        return self.proj(mixed.reshape(len(x), length, -1))


class Folded(nn.Module):
    """Heads that share an axis with examples."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads, self.head_dim = 4, 2
        self.q, self.k, self.v, self.proj = nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(8, 6)

    def folded(self, x: Tensor) -> Tensor:
        split = x.view(len(x), x.shape[1], self.num_heads, self.head_dim).permute(0, 2, 1, 3)
        return split.reshape(-1, x.shape[1], self.head_dim)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (self.folded(layer(x)) for layer in (self.q, self.k, self.v))
        mixed = torch.bmm(torch.bmm(q, k.transpose(1, 2)).softmax(-1), v)
        mixed = mixed.view(len(x), self.num_heads, x.shape[1], self.head_dim).permute(0, 2, 1, 3)
        return self.proj(mixed.reshape(len(x), x.shape[1], -1))


class Repeated(nn.Module):
    """One layer passed twice, around an activation that adds a value to its own cube: no residual stream."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(6, 10), nn.Linear(10, 6)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(2):
            h = self.up(x)
            x = x + self.down(h * torch.tanh(h + 0.04 * h.pow(3)))
        return x


class GroupDeviation(nn.Module):
    """A normalisation by the deviation of groups of channels alone, written out (EvoNorm)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.out = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv(x).unflatten(1, (-1, 2))
        return self.out((h / torch.sqrt(h.var((2, 3, 4), False, True) + 1e-3)).flatten(1, 2))


IMAGE, TOKENS = torch.randn(6, 3, 8, 8), torch.randn(6, 5, 6)
CASES: dict[str, tuple[Callable[[], nn.Module], Tensor, dict[str, int]]] = {
    "functions": (Mnist, torch.randn(6, 1, 10, 10), {"conv1": 8, "conv2": 12, "fc1": 16}),
    "gated pair": (lambda: sequential(Gated(), Gated()), TOKENS, {"0": 16, "1": 16}),
    "packed heads": (lambda: sequential(nn.LayerNorm(6), Packed()), TOKENS, {"1": 4}),
    "squeeze": (Excited, torch.randn(6, 4, 8, 8), {"wide": 12, "squeeze": 3}),
    "concatenation": (Dense, IMAGE, {}),
    "made bias": (Biased, TOKENS, {"": 4}),
    "folded heads": (Folded, TOKENS, {"": 4}),
    "passed twice": (Repeated, TOKENS, {"": 10}),
    "shared": (Shared, torch.randint(0, 11, (6, 5)), {"up": 10}),
    "norm behind": (
        lambda: sequential(
            nn.Conv2d(3, 8, (3, 1), padding="same"), nn.GELU(), nn.BatchNorm2d(8, affine=False), nn.Conv2d(8, 2, 3)
        ),
        IMAGE,
        {"0": 8},
    ),
    "group norm": (
        lambda: sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(4, 8), nn.ReLU(), nn.Conv2d(8, 2, 1)),
        IMAGE,
        {"0": 4},
    ),
    "deviation of groups": (GroupDeviation, IMAGE, {"": 4}),
    "transposed": (
        lambda: sequential(
            nn.ConvTranspose2d(3, 8, 2, stride=2), nn.InstanceNorm2d(8, affine=True), nn.Conv2d(8, 2, 1)
        ),
        IMAGE,
        {"0": 8},
    ),
    "one dimension": (lambda: sequential(nn.Conv1d(5, 8, 3), nn.PReLU(8), nn.Conv1d(8, 2, 1)), TOKENS, {"0": 8}),
    "three dimensions": (
        lambda: sequential(nn.Conv3d(1, 8, 2), nn.ReLU(), nn.MaxPool3d(2), nn.Conv3d(8, 2, 1)),
        torch.randn(4, 1, 6, 6, 6),
        {"0": 8},
    ),
    "grouped": (lambda: sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, groups=4), nn.Conv2d(8, 2, 1)), IMAGE, {}),
}


def analysed(network: nn.Module, inputs: Tensor) -> Analysis:
    return analyse(network.eval(), ((inputs[:2],), {}))


@pytest.mark.parametrize("case", CASES)
def test_groups_are_found_and_the_smaller_network_is_proven(case: str) -> None:
    torch.manual_seed(0)
    make, inputs, wanted = CASES[case]
    network = make().eval()
    analysis = analysed(network, inputs)
    free = {group.path: group for group in analysis.groups if not group.stream and not group.inner}
    for path, size in wanted.items():
        assert any(len(group) == size and group.path.startswith(path) for group in free.values()), (case, list(free))
    counts = {group: group.units.allowed(max(1, len(group) // 2)) for group in free.values()}
    assert counts, case
    proven = prove_groups(analysis, counts)
    assert not proven.refused and proven.difference < 1e-4, proven.refused
    small = paramtrans.translate(network, "refit", ratio=0.5, by="units", calibrate=inputs)
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in network.parameters())
    assert small(inputs).shape == network(inputs).shape and small(inputs).isfinite().all()


def test_a_residual_stream_is_seen_and_left_alone() -> None:
    network = sequential(nn.Linear(6, 6), Gated(), Gated(), nn.Linear(6, 3))
    groups = analysed(network, TOKENS).groups
    assert {group.path for group in groups if not group.stream} == {
        "1",
        "2",
    }  # the norm ties the stream together


def test_what_is_no_size_stays_as_it_is() -> None:
    class Adapted(nn.Linear):
        """A subclass, as adapters for fine-tuning are."""

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * 2

    network = sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8, momentum=0.3),
        nn.ReLU(),
        nn.Flatten(),
        Adapted(8 * 36, 8),
        nn.ReLU(),
        nn.Linear(8, 2),
    )
    network.to(memory_format=torch.channels_last).eval()
    network[0].weight.requires_grad = False
    network[1].num_batches_tracked += 7
    network[1].train()
    network[1].eval()
    network.train()
    network[1].eval()  # frozen statistics in a network that is trained further
    seen = []
    network[6].register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[1]))
    images = torch.randn(8, 3, 8, 8)
    small = paramtrans.translate(network, "prune", ratio=0.5, by="units", calibrate=images)
    assert small[0].weight.shape == (4, 3, 3, 3) and not small[0].weight.requires_grad and small[1].weight.requires_grad
    assert small[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert small[1].momentum == 0.3 and small[1].num_batches_tracked == 7 and small.training and not small[1].training
    assert type(small[4]) is Adapted and small[4].out_features == 8  # read by a hook, so it keeps its width
    seen.clear()
    small(images)
    assert seen == [8]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays(dtype: torch.dtype) -> None:
    network = sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3)).to(dtype).eval()
    small = paramtrans.translate(network, ratio=0.5, by="units", calibrate=torch.randn(40, 6, dtype=dtype))
    assert small[0].weight.shape == (8, 6) and {p.dtype for p in small.parameters()} == {dtype}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rounding_to_half_precision_is_no_reason_to_leave_units_alone(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    network = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 2).to(dtype).eval()
    inputs = torch.randn(32, 6, 16, dtype=dtype)
    small = paramtrans.translate(network, "prune", ratio=0.5, by="units", calibrate=inputs)
    assert [layer.linear1.out_features for layer in small.layers] == [16, 16]
    assert {parameter.dtype for parameter in small.parameters()} == {dtype}


class Chaotic(nn.Module):
    """Enlarges differences a million times."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 512), nn.Linear(512, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(F.relu(self.first(x)))
        for _ in range(3):
            x = torch.sin(100 * x)
        return x


def test_rounding_that_a_network_enlarges_is_no_reason_to_leave_units_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    analysis = analyse(Chaotic().eval(), ((torch.randn(64, 6),), {}))
    proven = prove_groups(analysis, dict.fromkeys(analysis.groups, 171))
    assert not proven.refused and len(proven.counts) == 1
    monkeypatch.setattr("paramtrans.networks.graph.proof.HIGHER", ())
    assert prove_groups(analysis, dict.fromkeys(analysis.groups, 171)).refused


def test_a_wrong_unit_is_refused_in_half_precision_too() -> None:
    class Mirrored(nn.Module):
        """Of a smaller width it computes something else."""

        def __init__(self) -> None:
            super().__init__()
            self.up, self.down = nn.Linear(6, 16), nn.Linear(16, 3)

        def forward(self, x: Tensor) -> Tensor:
            hidden = self.up(x)
            return self.down(hidden * hidden.shape[-1] / 16)

    torch.manual_seed(0)
    inputs = torch.randn(32, 6, dtype=torch.bfloat16)
    with pytest.raises(SpecMismatch, match="something else"):
        paramtrans.translate(Mirrored().bfloat16().eval(), ratio=0.5, by="units", calibrate=inputs)


def test_casts_to_a_device_are_counted_without_a_word(caplog: pytest.LogCaptureFixture) -> None:
    class Cast(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down = nn.Linear(6, 8), nn.Linear(8, 3)
            self.register_buffer("scale", torch.ones(6))

        def forward(self, x: Tensor) -> Tensor:
            return self.down(F.relu(self.up(x * self.scale.to(x.device).to(device=x.device, dtype=torch.float64))))

    analysis = analyse(Cast().double().eval(), ((torch.randn(2, 6).double(),), {}))
    assert [*operations_of(analysis, analysis.groups, 2).values()] == [2 * (6 * 8 + 8 * 3)]
    assert "left out" not in caplog.text


def test_an_input_normalisation_in_a_hook_acts_on_the_smaller_network() -> None:
    torch.manual_seed(0)
    network = sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3)).eval()
    network[0].register_forward_pre_hook(lambda _, given: ((given[0] - 100) / 50,))
    images = 100 + 50 * torch.randn(256, 3, 8, 8)
    small = paramtrans.translate(network, ratio=0.5, by="units", calibrate=images)
    error = (small(images) - network(images)).square().mean() / network(images).var()
    assert error < 0.5 and small.paramtrans_blocks[0].feature_error == pytest.approx(float(error), rel=0.5)


def test_features_that_are_returned_keep_their_shape() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(6, 16), nn.Linear(16, 12), nn.Linear(12, 3)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            features = F.relu(self.a(x))
            return features, self.c(F.relu(self.b(features)))

    small = paramtrans.translate(Both().eval(), ratio=0.5, by="units", calibrate=torch.randn(40, 6))
    assert [out.shape for out in small(torch.randn(2, 6))] == [(2, 16), (2, 3)] and small.b.out_features == 6


def test_networks_that_give_no_numbers_or_draw_at_random_are_refused_and_inputs_are_left_alone() -> None:
    class Noisy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.dropout(x, training=True)

    inputs = torch.randn(8, 6)
    with pytest.raises(DataError, match="draws at random"):
        paramtrans.translate(sequential(nn.Linear(6, 8), Noisy(), nn.Linear(8, 2)), by="units", calibrate=inputs)
    broken = sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))
    nn.init.constant_(broken[2].bias, float("nan"))
    with pytest.raises(DataError, match="bias holds NaN"):
        paramtrans.translate(broken, by="units", calibrate=inputs)
    before = inputs.clone()
    paramtrans.translate(
        sequential(nn.ReLU(inplace=True), nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2)), by="units", calibrate=inputs
    )
    assert torch.equal(inputs, before)


def test_what_the_graph_does_not_say_is_named() -> None:
    with pytest.raises(SpecMismatch, match="lstm"):
        paramtrans.translate(nn.LSTM(6, 8, batch_first=True).eval(), "prune", ratio=0.5, by="units", calibrate=TOKENS)


def test_heads_and_hidden_units_of_a_layer_of_pytorch_are_left_out() -> None:
    network = nn.TransformerEncoderLayer(6, 2, 12, bias=False).eval()
    small = paramtrans.translate(network, "prune", ratio=0.5, by="units", calibrate=TOKENS)
    assert small(TOKENS).shape == TOKENS.shape
    assert {group.path for group in small.paramtrans_blocks} == {"linear1", "self_attn"}


def test_networks_run_no_further_than_to_the_last_layer_that_is_solved_for() -> None:
    passed: list[int] = []

    class Head(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            passed.append(len(x))
            return x.softmax(1)

    network = sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 4), Head())
    small = paramtrans.translate(network, calibrate=torch.randn(64, 6), by="units")
    assert small[2].in_features == 6  # type: ignore[union-attr]
    assert max(passed) <= 3, "all calibration inputs went through the end of the network"


def test_a_few_positions_with_enormous_outputs_do_not_decide_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network = sequential(nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 4))
    inputs, others = torch.randn(512, 6), torch.randn(512, 6)
    inputs[::100] = 300 * torch.randn(1, 6)  # one kind of input that gives far more than all others

    def error() -> float:
        small = paramtrans.translate(network, calibrate=inputs, by="units", ratio=0.5)
        return float((small(others) - network(others)).square().sum() / network(others).square().sum())

    limited_error = error()
    monkeypatch.setattr(limits, "MOST", float("inf"))
    assert limited_error < 0.5 * error()


def test_rows_count_as_they_are_but_for_those_beyond_the_limit() -> None:
    outputs = torch.ones(2000, 4)
    outputs[7] = 100.0
    [(_, scale)] = limits.limited([outputs], lambda piece: piece)
    assert torch.equal(scale[torch.arange(2000) != 7], torch.ones(1999, 1))
    assert float((scale[7] * outputs[7]).square().sum()) == pytest.approx(limits.MOST * 4)
    nothing = torch.zeros(3, 4)
    [(_, scale)] = limits.limited([nothing], lambda piece: piece)
    assert torch.equal(scale, torch.ones(3, 1))


def test_a_translated_network_is_saved_and_rebuilt_and_a_strangers_record_is_bounded(tmp_path: Path) -> None:
    torch.manual_seed(0)
    inputs = torch.randn(40, 5, 6)
    small = paramtrans.translate(sequential(Packed(), Gated()).eval(), ratio=0.5, by="units", calibrate=inputs)
    path = tmp_path / "small.safetensors"
    paramtrans.save_translated(small, path)
    again = paramtrans.load_translated(path, sequential(Packed(), Gated()))
    torch.testing.assert_close(again(inputs), small(inputs))
    assert again.paramtrans_blocks == small.paramtrans_blocks and again[0].num_heads == 2
    params, record = sealed_params.load_params(path)
    kept_record = {key: record[key] for key in ("format", "paramtrans", "architecture", "blocks")}
    for size in (
        {"module": "0", "attribute": "num_heads", "before": 4, "after": 10**9},
        {"module": "0", "attribute": "forward", "before": 1, "after": 1},
        {"module": "9", "attribute": "num_heads", "before": 4, "after": 2},
    ):
        sealed_params.save_params(path, params, {**kept_record, "sizes": [size]})
        with pytest.raises(StoreError):
            paramtrans.load_translated(path, sequential(Packed(), Gated()))


@pytest.mark.thorough
def test_a_real_language_model_with_grouped_queries_and_rotary_positions() -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=50, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    network = transformers.LlamaForCausalLM(config).eval()
    tokens = torch.randint(0, 50, (40, 7))
    small = paramtrans.translate(network, ratio=0.5, by="units", calibrate={"input_ids": tokens})
    layer = small.model.layers[0]
    assert layer.mlp.gate_proj.out_features == layer.mlp.down_proj.in_features == 24
    assert (layer.self_attn.q_proj.out_features, layer.self_attn.k_proj.out_features) == (16, 8)
    assert small(input_ids=tokens).logits.shape == (40, 7, 50)


MORE = (pytest.param(name, marks=pytest.mark.slow) for name in ("efficientnet_b0", "densenet121"))


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224", *MORE])
def test_real_networks_of_timm(name: str) -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    network = timm.create_model(name, num_classes=4, **({"img_size": 64} if "vit" in name else {})).eval()
    images = torch.randn(2, 3, 64, 64)
    small = paramtrans.translate(network, "prune", ratio=0.5, by="units", calibrate=images)
    before, after = (sum(p.numel() for p in model.parameters()) for model in (network, small))
    assert after < 0.75 * before and small(images).isfinite().all()


def test_what_no_example_reads_stays() -> None:
    class Positions(nn.Module):
        """An embedding of twelve positions, of which examples of five have the first."""

        def __init__(self) -> None:
            super().__init__()
            self.positions = nn.Parameter(torch.randn(12, 6))
            self.layers = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 6))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layers(x + self.positions[: x.shape[1]])

    torch.manual_seed(0)
    small = paramtrans.translate(Positions().eval(), calibrate=torch.randn(40, 5, 6))
    assert [block.path for block in small.paramtrans_blocks] == ["layers"]
    assert small(torch.randn(2, 12, 6)).shape == (2, 12, 6)
