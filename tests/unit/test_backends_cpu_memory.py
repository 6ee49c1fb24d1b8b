"""The CPU back end recycles its arrays; no result may ever change because of that."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.func import stack_module_state

from paramtrans.backends.cpu.arrays import Memory
from paramtrans.backends.cpu.stacked import CpuStack
from paramtrans.backends.layers import SpatialAttention

pytestmark = pytest.mark.kernels

State = dict[str, Tensor]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2))
        self.mix = nn.Conv2d(4, 4, 1)
        self.attend = SpatialAttention()
        self.last = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return self.last(self.attend(self.mix(x), x, x) + x)


@pytest.fixture
def state() -> State:
    torch.manual_seed(0)
    params, buffers = stack_module_state([Net() for _ in range(2)])
    return {**params, **{k: b for k, b in buffers.items() if "num_batches" not in k}}


@pytest.fixture
def several() -> list[Tensor]:
    torch.manual_seed(1)
    return [torch.randn(2, batch, 1, 8, 8) for batch in (5, 5, 9, 5, 2)]


def gradients(outputs: Tensor, state: State) -> list[Tensor]:
    trained = [p for p in state.values() if p.requires_grad]
    return list(torch.autograd.grad(outputs.square().sum(), trained, retain_graph=True))


def alone(state: State, inputs: Tensor) -> list[Tensor]:
    """Outputs and gradients by an object that does nothing else."""
    outputs = CpuStack(Net())(state, inputs)
    return [outputs.detach().clone(), *gradients(outputs, state)]


def same(tensors: list[Tensor], wanted: list[Tensor]) -> None:
    assert len(tensors) == len(wanted)
    for a, b in zip(tensors, wanted, strict=True):
        assert torch.equal(a, b)


def test_many_calls_before_their_backward_passes(state: State, several: list[Tensor]) -> None:
    stack = CpuStack(Net())
    outputs = []
    for inputs in several:
        outputs.append(stack(state, inputs))
        with torch.no_grad():
            stack(state, inputs + 1)
        stack(state, inputs - 1)  # its graph is dropped at once
    for i in (3, 0, 4, 2, 1):
        tensors = [outputs[i].detach(), *gradients(outputs[i], state)]
        with torch.no_grad():
            stack(state, several[i] * 2)
        same(tensors, alone(state, several[i]))


def test_backward_twice_over_one_graph_and_over_two_at_once(state: State, several: list[Tensor]) -> None:
    stack = CpuStack(Net())
    first, second = (stack(state, inputs) for inputs in several[:2])
    once = gradients(first, state)
    both = gradients(torch.cat([first, second]), state)
    same(gradients(first, state), once)
    parts = (alone(state, inputs)[1:] for inputs in several[:2])
    for gradient, a, b in zip(both, *parts, strict=True):
        assert torch.allclose(gradient, a + b, rtol=1e-4, atol=1e-5)


def test_results_outlive_the_lanes_and_keep_their_values(state: State, several: list[Tensor]) -> None:
    stack = CpuStack(Net())
    kept = [stack(state, inputs).detach() for inputs in several]
    tensors = gradients(stack(state, several[0]), state)
    copies = [t.clone() for t in [*kept, *tensors]]
    for inputs in several:
        gradients(stack(state, inputs), state)
    del stack
    same([*kept, *tensors], copies)


def test_exceptions_in_between(state: State, several: list[Tensor]) -> None:
    stack = CpuStack(Net())
    outputs = stack(state, several[0])
    with pytest.raises(ValueError, match="65 features"):
        stack({**state, "last.1.weight": torch.zeros(2, 3, 65)}, several[1])
    with pytest.raises(ValueError, match="3 channels"):
        stack({**state, "mix.weight": torch.zeros(2, 4, 3, 1, 1)}, several[1])
    hook = outputs.register_hook(_fail)
    with pytest.raises(ArithmeticError):
        gradients(outputs, state)
    hook.remove()
    same([outputs.detach(), *gradients(outputs, state)], alone(state, several[0]))
    same([(again := stack(state, several[2])).detach(), *gradients(again, state)], alone(state, several[2]))


def _fail(gradient: Tensor) -> None:
    raise ArithmeticError


def test_one_object_in_many_threads(state: State, several: list[Tensor]) -> None:
    stack, wanted = CpuStack(Net()), [alone(state, inputs) for inputs in several]
    wrong: list[object] = []

    def work(turn: int) -> None:
        try:
            for n in range(12):
                i = (n + turn) % len(several)
                outputs = stack(state, several[i])
                same([outputs.detach(), *gradients(outputs, state)], wanted[i])
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(turn,)) for turn in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.fixture
def quick_switches() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_no_array_is_given_out_twice(quick_switches: None) -> None:
    memory, wrong = Memory(), []

    def work(mark: int) -> None:
        for n in range(300):
            arrays = [memory.empty(3 + (n + k) % 5, 7).fill_(mark) for k in range(4)]
            wrong.extend(a for a in arrays if not bool((a == mark).all()))

    threads = [threading.Thread(target=work, args=(mark,)) for mark in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_view_keeps_its_array() -> None:
    memory = Memory()
    part = memory.empty(4, 8).fill_(1.0).flatten()[5:9]
    numbers = memory.empty(4, 8).fill_(2.0).numpy()[1:]
    for _ in range(3):
        memory.empty(4, 8).fill_(3.0)
    assert (part == 1).all()
    assert (numbers == 2).all()


def test_nothing_is_called_when_an_array_ends() -> None:
    # An interrupt raised there could go nowhere: Python prints it, and goes on.
    array, called = Memory().empty(8), []
    sys.setprofile(lambda frame, event, argument: called.append(event))
    del array
    sys.setprofile(None)
    assert "call" not in called
