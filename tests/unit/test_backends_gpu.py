"""Networks in the layout for GPUs, against each model on its own in float64; kernels run in Triton's interpreter."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state

from paramtrans.backends.layers import SpatialAttention

pytest.importorskip("triton", reason="comes with PyTorch on Linux alone")
from paramtrans.backends.gpu.stacked import GpuStack, supports

pytestmark = pytest.mark.kernels

State = dict[str, Tensor]
Call = Callable[[State, Tensor], Tensor]


class Source(nn.Module):
    """A residual block with norms."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2, 2, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(2)
        self.conv2 = nn.Conv2d(2, 2, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(2)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.norm2(self.conv2(torch.relu(self.norm1(self.conv1(x))))) + x)


class Target(nn.Module):
    """A narrower residual block with biases."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2, 1, 3, padding=1)
        self.conv2 = nn.Conv2d(1, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv2(torch.relu(self.conv1(x))) + x)


class Attending(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Conv2d(2, 2, 1, bias=False) for _ in range(3))
        self.attend = SpatialAttention()

    def forward(self, x: Tensor) -> Tensor:
        mixed: Tensor = self.attend(self.q(x), self.k(x), self.v(x))
        return x + mixed


def network(block: nn.Module) -> nn.Sequential:
    """The paper's host, smaller: an interpreter is slow."""
    former = nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1, bias=False), nn.BatchNorm2d(2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)
    )
    latter = nn.Sequential(
        nn.Conv2d(2, 3, 1, stride=2, bias=False), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 4)
    )
    return nn.Sequential(former, block, latter)


def odd_network() -> nn.Module:
    """Odd sizes throughout, on 2 x 7 x 9 inputs; more output channels than one program takes."""
    return nn.Sequential(
        nn.Conv2d(2, 3, (3, 2), stride=2, padding=1),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.MaxPool2d(2, stride=1),
        nn.Conv2d(3, 11, 1, stride=(1, 2), padding=1),
        nn.ReLU(inplace=True),
        nn.BatchNorm2d(11, affine=False),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.BatchNorm1d(11),
        nn.Linear(11, 3),
    )


CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "source": (lambda: network(Source()), (1, 8, 8)),
    "target": (lambda: network(Target()), (1, 8, 8)),
    "attention": (Attending, (2, 3, 2)),
    "odd": (odd_network, (2, 7, 9)),
    "strided": (lambda: nn.Conv2d(2, 2, (1, 3), (2, 1), (1, 0)), (2, 5, 6)),
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


def one_by_one(module: nn.Module) -> Call:
    """Calls of each model alone, in float64, each layer by its own training flag."""
    module = copy.deepcopy(module).double()

    def call(params: State, inputs: Tensor) -> Tensor:
        outputs = []
        for i, x in enumerate(inputs):
            outputs.append(functional_call(module, {name: p[i] for name, p in params.items()}, (x,)))
        return torch.stack(outputs)

    return call


def results(
    call: Call, state: tuple[State, State], inputs: Tensor, frozen: tuple[str, ...], dtype: torch.dtype
) -> State:
    """Outputs, gradients and buffers after one forward and backward pass."""
    params = {k: p.to(dtype).clone().requires_grad_(not k.startswith(frozen)) for k, p in state[0].items()}
    buffers = {k: b.to(dtype).clone() for k, b in state[1].items()}
    inputs = inputs.to(dtype).clone().requires_grad_("" not in frozen)
    outputs = call({**params, **buffers}, inputs)
    seed = torch.arange(outputs[0].numel()).double().sin().to(dtype)
    (outputs.flatten(1) * seed).sum().backward()
    values = {"outputs": outputs.detach(), **buffers, **{k: p.grad for k, p in params.items() if p.grad is not None}}
    return values if inputs.grad is None else {**values, "inputs": inputs.grad}


def close(values: State, wanted: State, tolerance: float = 1e-5) -> None:
    assert values.keys() == wanted.keys()
    for name, value in wanted.items():
        error = (values[name].double() - value).norm()
        # The gradient of a bias before batch statistics is zero but for rounding.
        assert error <= tolerance * value.norm() + 1e-5, (name, error / value.norm())


def data(shape: tuple[int, ...], models: int, batch: int) -> Tensor:
    torch.manual_seed(3)
    return torch.randn(models, batch, *shape)


def agree(module: nn.Module, state: tuple[State, State], inputs: Tensor, frozen: tuple[str, ...] = ("none",)) -> None:
    stack = GpuStack(module)
    wanted = results(one_by_one(module), state, inputs, frozen, torch.float64)
    close(results(lambda p, x: stack(p, x, None), state, inputs, frozen, torch.float32), wanted)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_matches_single_models_in_float64(case: str, training: bool) -> None:
    make, shape = CASES[case]
    module = make().train(training)
    assert supports(module)
    agree(module, stacked(make, 2), data(shape, 2, 5))


def test_a_step_of_step_1_needs_no_gradient_of_the_images() -> None:
    make, shape = CASES["source"]
    module, state, inputs = make().train(), stacked(make, 2), data(shape, 2, 5)
    params = {k: p.clone().requires_grad_() for k, p in state[0].items()}
    images = inputs.clone()
    wanted = results(one_by_one(module), state, inputs, ("none",), torch.float64)
    outputs = GpuStack(module)({**params, **state[1]}, images, None)
    (outputs.flatten(1) * torch.arange(4 * 5).double().sin().float()).sum().backward()
    close({k: p.grad for k, p in params.items() if p.grad is not None}, {k: wanted[k] for k in params})


def test_frozen_parts_in_eval_mode_as_in_step_2() -> None:
    make, shape = CASES["target"]
    module = make().train()
    for part in (module[0], module[2]):  # type: ignore[index]
        part.eval()
    state, inputs = stacked(make, 2), data(shape, 2, 5)
    frozen = ("0.", "2.")
    stack = GpuStack(module)
    params = {k: p.clone().requires_grad_(not k.startswith(frozen)) for k, p in state[0].items()}
    wanted = results(one_by_one(module), state, inputs, frozen, torch.float64)
    outputs = stack({**params, **state[1]}, inputs, None)
    (outputs.flatten(1) * torch.arange(4 * 5).double().sin().float()).sum().backward()
    gradients = {k: p.grad for k, p in params.items() if p.grad is not None}
    assert gradients.keys() == {k for k in params if k.startswith("1.")}
    close({"outputs": outputs.detach(), **gradients}, {k: wanted[k] for k in ("outputs", *gradients)})


def test_tiles_that_end_within_an_image_and_several_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    from paramtrans.backends.gpu import conv_unit

    monkeypatch.setattr(conv_unit, "BLOCK", 64)
    monkeypatch.setattr(conv_unit, "CONV_BLOCK", 128)
    make, shape = CASES["source"]
    agree(make().train(), stacked(make, 2), data(shape, 2, 5))


def test_models_do_not_touch_each_other() -> None:
    make, shape = CASES["source"]
    stack, (params, buffers), inputs = GpuStack(make()), stacked(make, 3), data(shape, 3, 4)
    together = stack({**params, **{k: b.clone() for k, b in buffers.items()}}, inputs, True)
    alone = stack({k: t[1:2].clone() for k, t in {**params, **buffers}.items()}, inputs[1:2], True)
    torch.testing.assert_close(together[1:2], alone, rtol=1e-6, atol=1e-6)


def test_other_types_are_refused() -> None:
    make, shape = CASES["strided"]
    params, _ = stacked(make, 2)
    with pytest.raises(TypeError, match="float32"):
        GpuStack(make())(params, data(shape, 2, 3).double())
    with pytest.raises(ValueError, match="2 models"):
        GpuStack(make())({k: p[:1] for k, p in params.items()}, data(shape, 2, 3))
