"""Steps on networks in half precision come as far as in float32."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import paramtrans
from paramtrans.networks.forward.examples import Examples
from paramtrans.networks.parts.fitting import Fitting, fit
from paramtrans.ops.distances import relative_error

WAYS: dict[str, dict[str, Any]] = {
    "outputs": {"ratio": 0.5, "finish": 150},
    "features of units": {"ratio": 0.5, "then": {"matching": {"steps": 150}}},
    "features of parts": {"to": {"2": "low_rank_linear?rank=8"}, "options": {"steps": 150}},
}


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 48), nn.ReLU(), nn.Linear(48, 48), nn.ReLU(), nn.Linear(48, 4)).eval()


def error(precision: torch.dtype, asked: dict[str, Any]) -> float:
    inputs = torch.randn(256, 8, generator=torch.Generator().manual_seed(1)).to(precision)
    original = network().to(precision)
    small = paramtrans.translate(original, calibrate=inputs, **asked)
    assert {tensor.dtype for tensor in small.parameters()} == {precision}
    return float(relative_error(small(inputs)[None], original(inputs)[None]).detach())


@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("asked", WAYS.values(), ids=WAYS)
def test_steps_come_as_far_as_in_float32(asked: dict[str, Any], precision: torch.dtype) -> None:
    assert error(precision, asked) == pytest.approx(error(torch.float32, asked), rel=0.15)


def test_squares_of_large_features_have_room() -> None:
    large = torch.full((1, 4), 300.0, dtype=torch.float16)
    large[0, 0] = -300
    assert float(relative_error(large / 2, large)) == pytest.approx(
        0.25 * 300**2 / float(large.float().var(correction=0))
    )


def test_where_nothing_is_finite_it_is_said(caplog: pytest.LogCaptureFixture) -> None:
    weight = nn.Parameter(torch.ones(2, dtype=torch.float16))

    def infinite(number: int, chosen: Tensor) -> Tensor:
        return (weight * 60000 * 60000).sum()

    fitted = fit([weight], infinite, Examples([torch.ones(40, 2)]), Fitting(3, 0.1, 8, 0))
    assert fitted.steps == 0 and torch.equal(weight, torch.ones(2, dtype=torch.float16))
    assert "not finite in float16; translate in float32" in caplog.text
