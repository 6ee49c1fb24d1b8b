"""Networks over signals, run as images of height one in vector lanes, against `torch.func.vmap`."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from paramtrans.api.modules import initial
from paramtrans.backends.signals import SignalStack, as_images
from paramtrans.backends.vmap import Fastest, Vmap, stacked

pytestmark = pytest.mark.kernels


def network() -> nn.Sequential:
    """Steps, padding, both poolings and normalisation before a Linear."""
    return nn.Sequential(
        nn.Sequential(nn.Conv1d(2, 5, 4, 2, 1, bias=False), nn.BatchNorm1d(5), nn.ReLU(), nn.MaxPool1d(3, 2, 1)),
        nn.Conv1d(5, 3, 3, padding="same"),
        nn.ReLU(),
        nn.AvgPool1d(2),
        nn.AdaptiveAvgPool1d(2),
        nn.Flatten(),
        nn.Linear(6, 4),
    )


@pytest.mark.parametrize("training", [False, True])
def test_outputs_gradients_and_statistics_are_those_of_vmap(training: bool) -> None:
    fast = stacked(network())
    assert isinstance(fast, Fastest) and isinstance(fast.cpu, SignalStack)
    inputs = torch.randn(3, 6, 2, 37, generator=torch.Generator().manual_seed(0))
    given = [initial(network, [0, 1, 2]) for _ in range(2)]
    results = []
    for run, params in zip((fast, Vmap(network())), given, strict=True):
        leaves = [t.requires_grad_() for name, t in params.items() if "running" not in name]
        outputs = run(params, inputs, training)
        results.append([outputs, *torch.autograd.grad(outputs.square().sum(), leaves)])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    for name in ("0.1.running_mean", "0.1.running_var"):
        torch.testing.assert_close(given[0][name], given[1][name])
        assert torch.equal(given[0][name], initial(network, [0, 1, 2])[name]) != training


def test_features_that_stay_signals_come_out_without_a_height() -> None:
    alone = nn.Conv1d(2, 5, 3)
    params = initial(lambda: nn.Conv1d(2, 5, 3), [0, 1])
    inputs = torch.randn(2, 4, 2, 9, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(stacked(alone)(params, inputs), Vmap(alone)(params, inputs), rtol=1e-4, atol=1e-5)


def test_what_looks_at_images_too_or_at_no_signals_is_left_as_it_is() -> None:
    mixed = nn.Sequential(nn.Conv1d(2, 4, 3), nn.Unflatten(1, (1, 4)), nn.Conv2d(1, 2, 3))
    assert as_images(mixed) is None and as_images(nn.Linear(2, 3)) is None
    module = network()
    assert as_images(module) is not module and isinstance(module[1], nn.Conv1d)
