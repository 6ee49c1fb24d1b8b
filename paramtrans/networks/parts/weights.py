"""How much the outputs of a network depend on each value that leaves some of its parts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from paramtrans.networks.forward.activations import Inputs, call, every_layer, first_examples, length, pick_examples
from paramtrans.networks.forward.outputs import tensors_in
from paramtrans.networks.parts.running import split_output

MOST, AT_ONCE = 64, 8
"""Examples looked at, at most, and in one pass, whose activations are all held."""
DRAWS = 2
"""Random directions of the outputs in each pass."""


def output_weights(network: nn.Module, paths: Sequence[str], batch: Inputs) -> dict[str, Tensor]:
    """Mean square of the outputs' derivative by each value that leaves some parts, scaled to mean 1 in each part.

    For outputs f and features x this is the diagonal of JᵀJ, J = ∂f/∂x, as in `ops.sensitivity`, estimated with
    vectors of random signs (Hutchinson, 1990).

    Args:
        network: In eval mode.
        paths: Of the parts.
        batch: Inputs; the first `MOST` examples are looked at.

    Returns:
        By path `[1, *features]`; without those on which, as far as autograd knows, no output depends.
    """
    batch, generator = first_examples(batch, MOST), torch.Generator().manual_seed(0)
    squares: dict[str, Tensor] = {}
    for chosen in torch.arange(length(batch)).split(AT_ONCE):
        for path, square in _squares(network, paths, pick_examples(batch, chosen), generator).items():
            squares[path] = squares.get(path, 0) + square
    return {path: square / square.mean() for path, square in squares.items() if square.mean() > 0}


def _squares(network: nn.Module, paths: Sequence[str], batch: Inputs, generator: torch.Generator) -> dict[str, Tensor]:
    """Sums over the examples and some directions of the outputs."""
    left: dict[str, Tensor] = {}

    def keep(path: str) -> Any:
        def hook(_: nn.Module, __: Any, output: Any) -> Any:
            features, beside = split_output(output)
            assert features is not None
            left[path] = features if features.requires_grad else features.detach().requires_grad_()
            alike = left[path].clone()  # layers behind it may write to what they are given
            return alike if beside is None else (alike, *output[1:])

        return hook

    with (
        torch.enable_grad(),
        every_layer([network.get_submodule(path).register_forward_hook(keep(path)) for path in paths]),
    ):
        outputs = [tensor for tensor in tensors_in(call(network, batch)) if tensor.requires_grad]
    if not outputs:
        return {}
    squares = {path: torch.zeros_like(features[:1], dtype=torch.float32) for path, features in left.items()}
    for _ in range(DRAWS):
        signs = [torch.randint(0, 2, tensor.shape, generator=generator).to(tensor) * 2 - 1 for tensor in outputs]
        gradients = torch.autograd.grad(outputs, [*left.values()], signs, retain_graph=True, allow_unused=True)
        for square, gradient in zip(squares.values(), gradients, strict=True):
            if gradient is not None:
                square += gradient.float().square().sum(0, keepdim=True)
    return squares


def spread(weights: Tensor, features: Iterable[Tensor]) -> Tensor:
    """Weights for features that may have other lengths: one for all positions on axes that differ.

    Args:
        weights: `[1, *features]`.
        features: `[n, ...]` for each batch.

    Returns:
        Of a shape that spreads over each batch.
    """
    for of_batch in features:
        for axis in range(1, weights.ndim):
            if weights.shape[axis] not in (1, of_batch.shape[axis]):
                weights = weights.mean(axis, keepdim=True)
    return weights
