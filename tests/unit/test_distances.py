"""Relative errors: of any scale, around the mean of each channel, whatever the pieces."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from paramtrans.networks import measure_losses
from paramtrans.ops.distances import RelativeError, Variance, relative_error


def error_of(values: Tensor, wanted: Tensor) -> float | None:
    error = RelativeError()
    for piece in zip(values.split(3), wanted.split(3), strict=True):
        error.add(*piece)
    return error.value


class Scaled(nn.Module):
    """Class probabilities, times a number."""

    def __init__(self, width: int, scale: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.scale = nn.Linear(4, 6), scale
        with torch.no_grad():
            self.layer.weight[:, width:] = 0

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.scale * self.layer(x).softmax(1)
        return output


def test_errors_are_the_same_at_every_scale() -> None:
    x = torch.randn(16, 4, generator=torch.Generator().manual_seed(1))
    errors = [
        measure_losses(Scaled(4, scale).eval(), Scaled(2, scale).eval(), x).outputs[""] for scale in (1.0, 1e-5, 1e5)
    ]
    assert errors[0] > 0.1
    assert errors == pytest.approx([errors[0]] * 3, rel=1e-4)
    wanted, given = torch.randn(2, 1, 9)
    for weights in (None, torch.full((9,), 2.0)):
        first, small = (relative_error(k * given, k * wanted, weights) for k in (1.0, 1e-6))
        assert torch.allclose(first, small, rtol=1e-4)


@pytest.mark.parametrize("shape", [(8, 2), (8, 2, 5, 5), (8, 5, 2)])
def test_fixed_differences_of_channels_are_no_variance(shape: tuple[int, ...]) -> None:
    """A constant of each channel is an error of 1, wherever the channels are."""
    axis = -1 if len(shape) == 3 else 1
    offsets = torch.tensor([300.0, 0.5]).view([2 if i == axis % len(shape) else 1 for i in range(len(shape))])
    wanted = torch.randn(shape, generator=torch.Generator().manual_seed(2)) + offsets
    others = [i for i in range(len(shape)) if i != axis % len(shape)]
    constant = wanted.mean(others, keepdim=True).expand(shape)
    assert error_of(constant, wanted) == pytest.approx(1, rel=1e-5)
    assert error_of(wanted, wanted) == 0


def test_channels_are_found_where_texts_have_other_lengths() -> None:
    torch.manual_seed(0)
    offsets, variance = torch.tensor([300.0, 0.5]), Variance()
    pieces = [torch.randn(2, tokens, 2) + offsets for tokens in (5, 9)]
    for piece in pieces:
        variance.add(piece)
    rows = torch.cat([piece.flatten(0, 1) for piece in pieces]).double()
    assert variance.value == pytest.approx(rows.var(0, correction=0).mean().item(), rel=1e-6)


def test_what_never_differs_has_no_relative_error() -> None:
    """Nothing can be said of it, unless it is met; in a loss it is relative to the mean square."""
    constant = torch.tensor([[0.1, -7.0]]).expand(8, 2)
    assert error_of(constant * 1.01, constant) is None
    assert error_of(constant * (1 + 1e-7), constant) == 0
    assert error_of(torch.ones(8, 2), torch.zeros(8, 2)) is None
    ones = torch.ones(1, 8)
    assert relative_error(1.5 * ones, ones).item() == relative_error(0.5 * ones, 0 * ones).item() == 0.25
