"""Attention in lanes, against each model on its own in float64."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numba import njit
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from paramtrans.backends.cpu.arrays import Memory, pack, unpack
from paramtrans.backends.cpu.functions import CpuAttention
from paramtrans.backends.cpu.stacked import CpuStack, supports
from paramtrans.backends.cpu.vectors import exp2, load, store
from paramtrans.backends.layers import SpatialAttention

pytestmark = pytest.mark.kernels

State = dict[str, Tensor]
Call = Callable[[State, Tensor], Tensor]


class Block(nn.Module):
    """Attention between 1x1 convolutions, with values of a width of their own."""

    def __init__(self, channels: int, width: int, values: int) -> None:
        super().__init__()
        self.q, self.k = (nn.Conv2d(channels, width, 1, bias=False) for _ in range(2))
        self.v, self.out = nn.Conv2d(channels, values, 1), nn.Conv2d(values, channels, 1)
        self.attend = SpatialAttention()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.out(self.attend(self.q(x), self.k(x), self.v(x)))


def network() -> nn.Module:
    former = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
    latter = nn.Sequential(nn.Conv2d(6, 4, 1, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5))
    return nn.Sequential(former, Block(6, 6, 6), latter)


def stacked(make: Callable[[], nn.Module], models: int, sharpness: float = 1.0) -> State:
    torch.manual_seed(models)
    params, buffers = stack_module_state([make() for _ in range(models)])
    factor = {name: sharpness if name.endswith(("q.weight", "k.weight")) else 1.0 for name in params}
    state = {name: p.detach() * 2 * factor[name] for name, p in params.items()}
    return {**state, **{k: b.clone() for k, b in buffers.items() if "num_batches" not in k}}


def one_by_one(module: nn.Module) -> Call:
    module.double()

    def call(state: State, inputs: Tensor) -> Tensor:
        models = [{name: t[i] for name, t in state.items()} for i in range(len(inputs))]
        return torch.stack([functional_call(module, model, (x,)) for model, x in zip(models, inputs, strict=True)])

    return call


def results(call: Call, state: State, inputs: Tensor, dtype: torch.dtype = torch.float32) -> State:
    """Outputs and all gradients."""
    state = {k: t.to(dtype).clone().requires_grad_("running" not in k) for k, t in state.items()}
    inputs = inputs.to(dtype).clone().requires_grad_()
    outputs = call(state, inputs)
    seed = torch.arange(outputs[0].numel()).double().sin().to(dtype)
    (outputs.flatten(1) * seed).sum().backward()
    values = {"outputs": outputs.detach(), "inputs": inputs.grad, **{k: t.grad for k, t in state.items()}}
    return {name: t for name, t in values.items() if t is not None}


def close(values: State, wanted: State, tolerance: float = 1e-5) -> None:
    assert values.keys() == wanted.keys()
    # With one position nothing depends on queries and keys: their gradients are zero but for rounding.
    floor = 1e-7 * wanted["outputs"].norm() if "outputs" in wanted else 0.0
    for name, value in wanted.items():
        error = (values[name].double() - value).norm()
        assert error <= tolerance * value.norm() + floor, (name, error / value.norm())


def data(models: int, *shape: int) -> Tensor:
    torch.manual_seed(3)
    return torch.randn(models, *shape)


def attention_results(
    attend: Call, models: int, shape: tuple[int, int], widths: tuple[int, int], double: bool
) -> State:
    """Outputs of attention alone, and the gradients of queries, keys and values."""
    dtype = torch.float64 if double else torch.float32
    given = {name: data(models, 2, width, *shape) for name, width in zip("qkv", (widths[0], *widths), strict=True)}
    given = {name: (t + i).to(dtype).requires_grad_() for i, (name, t) in enumerate(given.items())}
    outputs = attend(given, torch.empty(0))
    (outputs * torch.arange(outputs.numel()).to(dtype).sin().view(outputs.shape)).sum().backward()
    return {"outputs": outputs.detach(), **{name: t.grad for name, t in given.items() if t.grad is not None}}


def attention_alone(given: State, _: Tensor) -> Tensor:
    lanes = [pack(t) for t in given.values()]
    return unpack(CpuAttention.apply(*lanes, Memory()), len(given["q"]))


def attention_one_by_one(given: State, _: Tensor) -> Tensor:
    return torch.stack([SpatialAttention()(*qkv) for qkv in zip(*given.values(), strict=True)])


@pytest.mark.parametrize("models", [1, 3, 17])
@pytest.mark.parametrize(
    "widths",
    [(3, 8), *(pytest.param(both, marks=pytest.mark.slow) for both in [(1, 1), (3, 3), (6, 6), (8, 8)])],
    ids=str,
)
@pytest.mark.parametrize("shape", [(2, 2), (5, 5), (14, 14), (1, 1), (1, 7), (3, 16), (1, 145)])
def test_matches_single_models_in_float64(shape: tuple[int, int], widths: tuple[int, int], models: int) -> None:
    wanted = attention_results(attention_one_by_one, models, shape, widths, double=True)
    close(attention_results(attention_alone, models, shape, widths, double=False), wanted)


@pytest.mark.parametrize("models", [1, 17])
def test_block_matches_single_models_in_float64(models: int) -> None:
    state, inputs = stacked(lambda: Block(5, 6, 3), models), data(models, 2, 5, 14, 14)
    wanted = results(one_by_one(Block(5, 6, 3)), state, inputs, torch.float64)
    close(results(CpuStack(Block(5, 6, 3)), state, inputs), wanted)


def test_sharp_attention_neither_overflows_nor_loses_its_sums() -> None:
    state, inputs = stacked(lambda: Block(5, 6, 3), 3, sharpness=7.0), data(3, 2, 5, 14, 14)
    values = results(CpuStack(Block(5, 6, 3)), state, inputs)
    assert all(t.isfinite().all() for t in values.values())
    wanted = results(one_by_one(Block(5, 6, 3)), state, inputs, torch.float64)
    # Scores of some hundreds are themselves only known to 1e-5 or so.
    close(values, wanted, 1e-3)
    for name in ("outputs", "v.weight", "out.weight"):
        assert (values[name] - wanted[name]).norm() <= 2e-5 * wanted[name].norm()


def test_scores_of_a_thousand_choose_one_position() -> None:
    module = Block(6, 6, 6)
    eye = torch.eye(6).view(1, 6, 6, 1, 1).repeat(2, 1, 1, 1, 1)
    zero = torch.zeros(2, 6)
    state = {"q.weight": 100 * eye, "k.weight": 100 * eye, "v.weight": eye, "v.bias": zero}
    inputs = torch.nn.functional.normalize(data(2, 3, 6, 14, 14), dim=2)
    outputs = CpuStack(module)({**state, "out.weight": -eye, "out.bias": zero}, inputs)
    assert outputs.isfinite().all()  # each position sees itself alone: x - x
    assert outputs.abs().median() < 1e-6


def test_not_a_number_stays_in_its_model() -> None:
    state, inputs = stacked(network, 3), data(3, 4, 1, 16, 16)
    clean = results(CpuStack(network()), state, inputs)
    state["1.q.weight"][1] = float("nan")
    values = results(CpuStack(network()), state, inputs)
    assert values["outputs"][1].isnan().all()
    for name, value in clean.items():
        assert torch.equal(values[name][[0, 2]], value[[0, 2]]), name


def test_same_bits_whatever_the_threads_and_other_models() -> None:
    state, inputs = stacked(lambda: Block(5, 6, 3), 19), data(19, 7, 5, 7, 14)

    def results_of(models: list[int], threads: int) -> State:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            return results(CpuStack(Block(5, 6, 3)), {k: t[models] for k, t in state.items()}, inputs[models])
        finally:
            torch.set_num_threads(before)

    whole = results_of(list(range(19)), 2)
    for models, threads in [(list(range(19)), 1), (list(range(19)), 5), ([18, 2], 2), ([2], 1)]:
        for name, part in results_of(models, threads).items():
            assert torch.equal(part, whole[name][models]), name


def test_five_steps_of_training() -> None:
    inputs, state = data(3, 8, 1, 16, 16), stacked(network, 3)
    labels = torch.randint(5, (3, 8))

    def train(call: Call, dtype: torch.dtype) -> State:
        values = {k: t.to(dtype).clone().requires_grad_(k.startswith("1.")) for k, t in state.items()}
        optimizer = torch.optim.SGD([t for t in values.values() if t.requires_grad], 0.02, momentum=0.9)
        for _ in range(5):
            optimizer.zero_grad()
            outputs = call(values, inputs.to(dtype)).flatten(0, 1)
            (nn.functional.cross_entropy(outputs, labels.flatten(), reduction="sum") / 8).backward()
            optimizer.step()
        return {k: t.detach() for k, t in values.items()}

    wanted = train(one_by_one(network().eval()), torch.float64)
    close(train(CpuStack(network()), torch.float32), wanted)
    assert not torch.equal(wanted["1.q.weight"].float(), state["1.q.weight"])


def test_the_plain_module_runs_under_vmap() -> None:
    q, k, v = (data(3, 2, width, 3, 5) for width in (4, 4, 7))
    outputs = vmap(SpatialAttention())(q, k, v)
    scores = torch.einsum("mbcp,mbcr->mbpr", q.flatten(-2), k.flatten(-2)) / 2
    wanted = torch.einsum("mbpr,mbcr->mbcp", scores.softmax(-1), v.flatten(-2))
    assert torch.allclose(outputs.flatten(-2), wanted, atol=1e-6)


class Named(Block):
    def forward(self, x: Tensor) -> Tensor:
        return self.attend(q=self.q(x), k=self.k(x), v=self.v(x))


def test_refuses_shapes_that_do_not_fit() -> None:
    q, v = torch.zeros(1, 2, 3, 4, 4, 16), torch.zeros(1, 2, 3, 4, 5, 16)
    with pytest.raises(ValueError, match="do not fit"):
        CpuAttention.apply(q, q, v, Memory())
    with pytest.raises(ValueError, match="do not fit"):
        CpuAttention.apply(q, q[:, :, :2], q, Memory())


def test_supports() -> None:
    assert supports(Block(5, 6, 6))
    assert supports(network())
    assert not supports(Named(5, 6, 6))


def exp2_error() -> float:
    @njit
    def run(x: np.ndarray) -> None:
        for n in range(0, x.size, 16):
            store(x, n, exp2(load(x, n)))

    x = np.concatenate([-np.linspace(0, 126, 1 << 20), -np.arange(0, 126, 0.125), -np.logspace(-20, 0, 4096)])
    x = x[: x.size // 16 * 16].astype(np.float32)
    y = x.copy()
    run(y)
    ends = np.array([0, -np.inf, np.nan, -127, -1000, -1e30, -149, -1e-30] * 2, np.float32)
    ends.view(np.uint32)[2], ends.view(np.uint32)[10] = 0x7FC12345, 0xFFFFFFFF  # with other bits set
    run(ends)
    assert ends[0] == ends[7] == 1
    assert np.isnan(ends[[2, 10]]).all()
    assert (ends[[1, 3, 4, 5, 6]] <= 2.0**-126).all()
    return float(np.abs(y / 2.0 ** x.astype(float) - 1).max())


def test_exponential() -> None:
    assert exp2_error() <= 1e-7


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="names x86 instructions")
def test_exponential_without_avx512() -> None:
    code = (
        f"import runpy; error = runpy.run_path({__file__!r})['exp2_error'](); assert error <= 1e-7, error; print('ran')"
    )
    environment = {**os.environ, "NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx2,+fma"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == "ran\n", done.stderr
