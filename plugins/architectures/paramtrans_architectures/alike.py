"""A network of a library that equals one that was made smaller: the first of several that has its sizes and outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

import torch
from torch import Tensor, nn

Outputs = Callable[[nn.Module], list[Tensor]]
Recipe = TypeVar("Recipe")
Network = TypeVar("Network", bound=nn.Module)

TOLERANCE = 1e-4
"""Largest difference of outputs, relative to the largest of them."""


def first_alike(
    network: nn.Module, recipes: Iterable[Recipe], build: Callable[[Recipe], Network], outputs: Outputs
) -> tuple[Recipe, Network] | None:
    """The first recipe by which the library builds a network equal to one that was made smaller, and that network.

    Args:
        network: The one that was made smaller.
        recipes: What to try, such as configs.
        build: Makes a fresh network of one.
        outputs: What a network gives for a few inputs.
    """
    shapes = shapes_of(network)
    expected = outputs(network)
    for recipe in recipes:
        with torch.device("meta"):
            try:
                candidate = build(recipe)
            except Exception:  # the library's own code may refuse its numbers in any way
                continue
        if shapes_of(candidate) != shapes:
            continue
        alike = build(recipe).to(next(network.parameters()).dtype).eval()
        alike.load_state_dict(network.state_dict())
        if _equal(expected, outputs(alike)):
            return recipe, alike
    return None


def shapes_of(network: nn.Module) -> dict[str, tuple[int, ...]]:
    """Shapes of all parameters and buffers by name."""
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def changed_sizes(before: nn.Module, after: nn.Module) -> list[tuple[int, int]]:
    """Sizes of tensors that are others in the second network, each with its new one."""
    smaller = shapes_of(after)
    return sorted(
        {
            (old, new)
            for name, sizes in shapes_of(before).items()
            for old, new in zip(sizes, smaller.get(name, sizes), strict=False)
            if old != new
        }
    )


def _equal(expected: list[Tensor], outputs: list[Tensor]) -> bool:
    """Whether outputs are the same but for rounding."""
    same_shapes = [a.shape == b.shape for a, b in zip(expected, outputs, strict=True)]
    return all(same_shapes) and all(
        float((a.float() - b.float()).abs().max()) <= TOLERANCE * max(1e-6, float(a.float().abs().max()))
        for a, b in zip(expected, outputs, strict=True)
    )
