"""The last layer of a target, solved for inside a translator."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from paramtrans_equivariant.probing import Seen, SolvedReadout
from torch import Tensor, nn

from paramtrans import components
from paramtrans.api.modules import initial


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("conv", {"hidden": 2}),
        ("conv", {"hidden": 2, "bias": True}),
        ("mlp", {"hidden": 5}),
        ("attention", {}),
        ("bottleneck", {"hidden": [3, 2]}),
    ],
    ids=str,
)
def test_the_readout_is_the_ridge_regression(name: str, options: dict[str, Any]) -> None:
    """At its solution the squared error has no slope, for a target whose ReLU hides nothing."""
    target: Any = components().create("block_adapter", name, channels=4, **options)
    generator = torch.Generator().manual_seed(5)
    entering = 1 + torch.rand(1, 5, 4, 6, 6, generator=generator, dtype=torch.float64)
    change = torch.rand(entering.shape, generator=generator, dtype=torch.float64)  # positive: the ReLU hides nothing
    params = {key: t.double() for key, t in initial(target.module, [4]).items()}
    seen = Seen(entering, entering + change, torch.ones(1, 1, 1, 1, 1))
    solved = SolvedReadout(target, ridge=1e-9)(params, seen)
    module = target.module().double()
    module.load_state_dict({key: t[0] for key, t in solved.items()})
    weights = list(module.get_submodule(target.readout).parameters())
    branch = module.get_submodule(target.readout)(_entering(module, target, entering[0]))
    residual = change[0] if name != "mlp" else change[0].movedim(1, -1)
    gradients = torch.autograd.grad((branch - residual).square().mean(), weights)
    assert all(gradient.abs().max() < 1e-6 for gradient in gradients)


def _entering(module: nn.Module, target: Any, inputs: Tensor) -> Tensor:
    entered: Tensor = module.features(inputs)  # type: ignore[operator]
    return entered.movedim(1, -1) if isinstance(module.get_submodule(target.readout), nn.Linear) else entered
