"""Stacked training is a plain loop of single models: gradients against float64, and state after five steps."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from paramtrans import components
from paramtrans.api import modules as api_modules
from paramtrans.api.modules import initial, tensor_specs
from paramtrans.api.stacking import split
from paramtrans.backends import vmap
from paramtrans.backends.host_runner import network
from paramtrans.builder import Builder
from paramtrans.config import Config

MODELS, BATCH, CLASSES = 3, 8, 4


def host(block: str, **options: int) -> Callable[[], nn.Module]:
    adapter = components().create("block_adapter", block, channels=4, **options)

    def build() -> nn.Module:
        former = [nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
        return nn.Sequential(*former, adapter.module(), nn.Flatten(), nn.Linear(4 * 5 * 5, CLASSES))

    return build


HOSTS = {
    "basic_block": host("basic_block", hidden=3),
    "conv": host("conv", hidden=2),
    "mlp": host("mlp", hidden=5),
    "attention": host("attention", hidden=3),
}


def data(steps: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.rand(steps, MODELS, BATCH, 1, 10, 10, generator=generator)
    return inputs, torch.randint(CLASSES, (steps, MODELS, BATCH), generator=generator)


def singles(build: Callable[[], nn.Module], params: dict[str, Tensor], dtype: torch.dtype) -> list[nn.Module]:
    modules = []
    for i in range(MODELS):
        module = build()
        module.load_state_dict({name: tensor[i] for name, tensor in params.items()}, strict=False)
        modules.append(module.to(dtype))
    return modules


def losses(outputs: Tensor, labels: Tensor) -> Tensor:
    return cross_entropy(outputs.flatten(0, 1), labels.flatten(), reduction="none").view(labels.shape).mean(1)


@pytest.mark.kernels
@pytest.mark.parametrize("name", HOSTS)
def test_gradients_of_a_step(name: str) -> None:
    build = HOSTS[name]
    params = api_modules.initial(build, range(MODELS))
    modules = singles(build, params, torch.float64)
    trained = api_modules.trained_names(build())
    for key in trained:
        params[key].requires_grad_()
    inputs, labels = data(1)
    run = vmap.stacked(build())
    losses(run(params, inputs[0], training=True), labels[0]).sum().backward()
    for i, module in enumerate(modules):
        cross_entropy(module(inputs[0, i].double()), labels[0, i]).backward()
        for key, parameter in module.named_parameters():
            error = (params[key].grad[i] - parameter.grad).norm() / parameter.grad.norm().clamp_min(1e-9)
            assert error < 1e-5, (key, error)


@pytest.mark.kernels
@pytest.mark.parametrize("name", HOSTS)
def test_five_steps(name: str) -> None:
    build = HOSTS[name]
    params = api_modules.initial(build, range(MODELS))
    modules = singles(build, params, torch.float32)
    trained = api_modules.trained_names(build())
    leaves = [params[key].requires_grad_() for key in params if key in trained]
    optimizer = torch.optim.SGD(leaves, 0.1, momentum=0.9)
    optimizers = [torch.optim.SGD(module.parameters(), 0.1, momentum=0.9) for module in modules]
    run = vmap.stacked(build())
    for inputs, labels in zip(*data(5), strict=True):
        optimizer.zero_grad()
        losses_of = losses(run(params, inputs, training=True), labels)
        losses_of.sum().backward()
        optimizer.step()
        for i, (module, single) in enumerate(zip(modules, optimizers, strict=True)):
            single.zero_grad()
            loss = cross_entropy(module(inputs[i]), labels[i])
            loss.backward()
            single.step()
            assert torch.allclose(losses_of[i], loss, rtol=1e-4, atol=1e-5)
    for i, module in enumerate(modules):
        for spec in tensor_specs(module):
            assert torch.allclose(params[spec.name][i], module.state_dict()[spec.name], rtol=1e-3, atol=1e-5), spec.name


@pytest.mark.kernels
def test_hosts_in_one_piece_compute_what_their_parts_do(tiny_config: Callable[..., Config]) -> None:
    builder = Builder(tiny_config(), components())
    whole = initial(lambda: network(builder.task, builder.source), [1, 2, 3])
    inputs = torch.rand(5, 1, 8, 8)
    run, in_one_piece = builder.runner, builder.runner.in_one_piece(builder.runner.source)
    assert in_one_piece is not None
    for given in (inputs.expand(3, *inputs.shape), torch.rand(3, 5, 1, 8, 8)):  # the same for all hosts, and their own
        features = run.source(split(whole, "block"), run.former(split(whole, "former"), given))
        assert torch.equal(in_one_piece(whole, given), run.latter(split(whole, "latter"), features))


def test_blocks_that_lanes_do_not_run_are_not_run_in_one_piece(tiny_config: Callable[..., Config]) -> None:
    builder = Builder(tiny_config('target={ name = "mlp", channels = 4, hidden = 4 }'), components())
    assert builder.runner.in_one_piece(builder.runner.target) is None
