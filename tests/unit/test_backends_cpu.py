"""Networks of convolutions in lanes, against each model on its own in float64."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from paramtrans.backends.cpu.stacked import CpuStack, supports

pytestmark = pytest.mark.kernels

State = dict[str, Tensor]
Call = Callable[[State, Tensor], Tensor]


class Source(nn.Module):
    """A residual block with norms."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(6, 6, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(6)
        self.conv2 = nn.Conv2d(6, 6, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(6)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(self.norm2(self.conv2(y)) + x)


class Target(nn.Module):
    """A narrower residual block with biases."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(6, 3, 3, padding=1)
        self.conv2 = nn.Conv2d(3, 6, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv2(torch.relu(self.conv1(x))) + x)


def network(block: nn.Module) -> nn.Sequential:
    former = nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(3, 2, 1)
    )
    latter = nn.Sequential(
        nn.Conv2d(6, 12, 1, stride=2, bias=False), nn.BatchNorm2d(12), nn.ReLU(), nn.Flatten(), nn.Linear(588, 10)
    )
    return nn.Sequential(former, block, latter)


def odd_network(kernel: int = 3, stride: int = 2, channels: int = 5, bias: bool = False) -> nn.Module:
    """Odd sizes throughout, on 3 x 11 x 13 inputs."""
    return nn.Sequential(
        nn.Conv2d(3, channels, kernel, stride=stride, padding=kernel // 2, bias=bias),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
        nn.MaxPool2d(2, stride=1),
        nn.Conv2d(channels, 7, (kernel, 3), stride=(1, stride), padding=(kernel // 2, 1)),
        nn.ReLU(inplace=True),
        nn.Conv2d(7, 4, 1, padding=1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 3),
        nn.Identity(),
    )


class Shortcut(nn.Module):
    """Two convolutions meet; a norm and a ReLU stand alone; one layer is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(4, affine=False)
        self.conv = nn.Conv2d(4, 4, 3, padding="same")
        self.left = nn.Sequential(nn.Conv2d(4, 6, 3, 2, 1, bias=False), nn.BatchNorm2d(6))
        self.right = nn.Sequential(nn.Conv2d(4, 6, 1, 2, bias=False), nn.BatchNorm2d(6))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(x))
        x = self.conv(self.conv(x)) + x
        return torch.flatten(torch.relu(self.left(x) + self.right(x)), 1)


CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "source": (lambda: network(Source()), (1, 28, 28)),
    "target": (lambda: network(Target()), (1, 28, 28)),
    "odd": (odd_network, (3, 11, 13)),
    "shortcut": (Shortcut, (4, 9, 8)),
    "bare": (lambda: nn.Conv2d(2, 3, (3, 5), (2, 1), (1, 0)), (2, 8, 9)),
    "norm": (lambda: nn.Sequential(nn.Linear(7, 5, bias=False), nn.BatchNorm1d(5)), (7,)),
    "linear": (lambda: nn.Linear(7, 3), (7,)),
}


def stacked(make: Callable[[], nn.Module], models: int) -> tuple[State, State]:
    """Stacked parameters and buffers of different models."""
    torch.manual_seed(models)
    params, buffers = stack_module_state([make() for _ in range(models)])
    params = {name: p.detach() for name, p in params.items()}
    buffers = {k: b + torch.rand_like(b) for k, b in buffers.items() if "num_batches" not in k}
    for name in params:
        if params[name].ndim == 2 and name.endswith("weight"):  # a batch norm's
            params[name] = torch.rand_like(params[name]) + 0.5
    return params, buffers


def one_by_one(make: Callable[[], nn.Module], training: bool) -> Call:
    """Calls of each model alone, in float64."""
    module = make().double().train(training)

    def call(params: State, inputs: Tensor) -> Tensor:
        outputs = []
        for i, x in enumerate(inputs):
            model = {name: p[i] for name, p in params.items()}
            outputs.append(functional_call(module, model, (x,)))
        return torch.stack(outputs)

    return call


def by_vmap(make: Callable[[], nn.Module], training: bool) -> Call:
    module = make().train(training)
    return lambda params, inputs: vmap(lambda p, x: functional_call(module, p, (x,)))(params, inputs)


def by_lanes(make: Callable[[], nn.Module], training: bool) -> Call:
    stack = CpuStack(make())
    return lambda params, inputs: stack(params, inputs, training)


def results(call: Call, params: State, buffers: State, inputs: Tensor, dtype: torch.dtype = torch.float32) -> State:
    """Outputs, gradients and buffers after one forward and backward pass."""
    params = {k: p.to(dtype).clone().requires_grad_() for k, p in params.items()}
    buffers = {k: b.to(dtype).clone() for k, b in buffers.items()}
    inputs = inputs.to(dtype).clone().requires_grad_()
    outputs = call({**params, **buffers}, inputs)
    seed = torch.arange(outputs[0].numel()).double().sin().to(dtype)
    (outputs.flatten(1) * seed).sum().backward()
    values = {"outputs": outputs.detach(), "inputs": inputs.grad, **buffers}
    return {**values, **{k: p.grad for k, p in params.items()}}


def close(values: State, wanted: State, tolerance: float = 1e-5) -> None:
    assert values.keys() == wanted.keys()
    for name, value in wanted.items():
        error = (values[name].double() - value).norm()
        # The gradient of a bias before batch statistics is zero but for rounding.
        assert error <= tolerance * value.norm() + 1e-7, (name, error / value.norm())


def data(shape: tuple[int, ...], models: int, batch: int) -> Tensor:
    torch.manual_seed(3)
    return torch.randn(models, batch, *shape)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("models", [1, 3, 17])
@pytest.mark.parametrize("case", CASES)
def test_matches_single_models_in_float64(case: str, models: int, training: bool) -> None:
    make, shape = CASES[case]
    assert supports(make())
    inputs = data(shape, models, 11)
    state = stacked(make, models)
    wanted = results(one_by_one(make, training), *state, inputs, torch.float64)
    close(results(by_lanes(make, training), *state, inputs), wanted)


@pytest.mark.parametrize("models", [16, 40])
def test_matches_vmap(models: int) -> None:
    make, shape = CASES["source"]
    inputs, state = data(shape, models, 6), stacked(make, models)
    wanted = results(by_vmap(make, True), *state, inputs)
    close(results(by_lanes(make, True), *state, inputs), wanted, 3e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "kernel, stride, channels", [(3, 1, 13), (5, 2, 13), (1, 1, 5), (1, 2, 13), (3, 2, 5), (5, 1, 5)]
)
def test_sizes(kernel: int, stride: int, channels: int) -> None:
    def make() -> nn.Module:
        return odd_network(kernel, stride, channels)

    inputs, state = data((3, 11, 13), 3, 9), stacked(make, 3)
    wanted = results(one_by_one(make, True), *state, inputs, torch.float64)
    close(results(by_lanes(make, True), *state, inputs), wanted)


def train(
    call: Call,
    params: State,
    buffers: State,
    inputs: Tensor,
    labels: Tensor,
    steps: int = 5,
    frozen: tuple[str, ...] = (),
) -> State:
    dtype = next(iter(params.values())).dtype
    params = {k: p.clone().requires_grad_(not k.startswith(frozen)) for k, p in params.items()}
    buffers = {k: b.clone() for k, b in buffers.items()}
    trained = [p for p in params.values() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, 0.02, momentum=0.9)
    for _ in range(steps):
        optimizer.zero_grad()
        outputs = call({**params, **buffers}, inputs.to(dtype)).flatten(0, 1)
        loss = nn.functional.cross_entropy(outputs, labels.flatten(), reduction="sum")
        (loss / inputs.shape[1]).backward()
        optimizer.step()
    assert all(p.grad is None for p in params.values() if not p.requires_grad)
    return {**{k: p.detach() for k, p in params.items()}, **buffers}


@pytest.mark.parametrize("case,frozen", [("source", ()), ("target", ("0.", "2."))])
def test_five_steps_of_training(case: str, frozen: tuple[str, ...]) -> None:
    make, shape = CASES[case]
    inputs, (params, buffers) = data(shape, 3, 16), stacked(make, 3)
    labels = torch.randint(10, (3, 16))
    double = [{k: t.double() for k, t in state.items()} for state in (params, buffers)]
    training = not frozen
    setting = (inputs, labels, 5, frozen or ("none",))
    wanted = train(one_by_one(make, training), *double, *setting)
    close(train(by_lanes(make, training), params, buffers, *setting), wanted, 1e-4)


def test_own_training_flags() -> None:
    def make() -> nn.Module:
        return network(Source())

    inputs, (params, buffers) = data((1, 28, 28), 2, 4), stacked(make, 2)
    module = make()
    module[0].eval()
    base = copy.deepcopy(module)
    wanted = vmap(lambda p, x: functional_call(base, p, (x,)))
    for value, right in zip(
        (by := results(lambda p, x: CpuStack(module)(p, x, None), params, buffers, inputs)).values(),
        results(wanted, params, buffers, inputs).values(),
        strict=True,
    ):
        assert (value - right).norm() <= 3e-5 * right.norm() + 1e-7
    assert torch.equal(by["0.1.running_mean"], buffers["0.1.running_mean"])


def test_max_pool_ties_choose_the_first() -> None:
    def make() -> nn.Module:
        return nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.MaxPool2d(3, 2, 1))

    inputs = torch.randint(0, 3, (3, 4, 1, 9, 9)).float()
    state = stacked(make, 3)
    state[0]["0.weight"].fill_(1.0)
    wanted = results(one_by_one(make, False), *state, inputs, torch.float64)
    close(results(by_lanes(make, False), *state, inputs), wanted)


def test_not_a_number_stays_in_its_model() -> None:
    make, shape = CASES["source"]
    params, buffers = stacked(make, 3)
    params["0.0.weight"][1] = float("nan")
    outputs = by_lanes(make, True)({**params, **buffers}, data(shape, 3, 4))
    assert outputs[1].isnan().all()
    assert outputs[[0, 2]].isfinite().all()


@pytest.mark.parametrize("case", ["source", "odd"])
def test_same_bits_whatever_the_threads_and_other_models(case: str) -> None:
    make, shape = CASES[case]
    inputs, (params, buffers) = data(shape, 19, 20), stacked(make, 19)

    def results_of(models: list[int], threads: int) -> State:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        few = [{k: t[models] for k, t in state.items()} for state in (params, buffers)]
        try:
            return results(by_lanes(make, True), *few, inputs[models])
        finally:
            torch.set_num_threads(before)

    whole = results_of(list(range(19)), 2)
    for models, threads in [(list(range(19)), 1), (list(range(19)), 5), ([18, 2], 2), ([2], 1)]:
        part = results_of(models, threads)
        for name in part:
            assert torch.equal(part[name], whole[name][models]), name


def test_strided_and_shared_inputs() -> None:
    make, shape = CASES["source"]
    params, buffers = stacked(make, 3)
    state, call = {**params, **buffers}, by_lanes(make, False)
    inputs = data(shape, 3, 4)
    assert torch.equal(call(state, inputs.transpose(3, 4).contiguous().transpose(3, 4)), call(state, inputs))
    shared = inputs[:1].expand(3, *inputs.shape[1:])
    assert torch.equal(call(state, shared), call(state, shared.contiguous()))
    turned = {k: t.movedim(0, -1).contiguous().movedim(-1, 0) for k, t in state.items()}
    assert torch.equal(call(turned, inputs), call(state, inputs))


@pytest.mark.parametrize(
    "module",
    [
        nn.MultiheadAttention(4, 2),
        nn.Softmax(-1),
        nn.Dropout(),
        nn.Conv2d(4, 4, 3, groups=2),
        nn.Conv2d(1, 1, 3, dilation=2),
        nn.BatchNorm2d(3, momentum=None),
        nn.Bilinear(2, 2, 2),
    ],
)
def test_unsupported(module: nn.Module) -> None:
    assert not supports(module)


def test_refuses_other_types() -> None:
    stack = CpuStack(nn.Linear(2, 2))
    params = {"weight": torch.zeros(3, 2, 2), "bias": torch.zeros(3, 2)}
    with pytest.raises(TypeError, match="float64"):
        stack(params, torch.zeros(3, 4, 2, dtype=torch.float64))
    with pytest.raises(ValueError, match="models"):
        stack(params, torch.zeros(2, 4, 2))
