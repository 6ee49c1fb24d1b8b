"""A network of a library that equals one that was made smaller: the first of several that has its sizes and outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

from paramtrans import ConfigError

Outputs = Callable[[nn.Module], list[Tensor]]
Recipe = TypeVar("Recipe")
Network = TypeVar("Network", bound=nn.Module)

TOLERANCE = 1e-4
"""Largest difference of outputs, relative to the largest of them."""
NAMED = 3
"""Layers that are named in a message."""


def first_alike(
    network: nn.Module,
    recipes: Iterable[Recipe],
    build: Callable[[Recipe], Network],
    outputs: Outputs,
    refusal: str,
) -> tuple[Recipe, Network]:
    """The first recipe by which the library builds a network equal to one that was made smaller, and that network.

    Args:
        network: The one that was made smaller.
        recipes: What to try, such as configs.
        build: Makes a fresh network of one.
        outputs: What a network gives for a few inputs.
        refusal: What is said where there is none, with `{}` for the layers that differ in the nearest network.

    Raises:
        ConfigError: no recipe gives an equal network.
    """
    shapes, nearest = shapes_of(network), list[str]()
    expected = outputs(network)
    for recipe in recipes:
        with torch.device("meta"):
            try:
                candidate = build(recipe)
            except Exception:  # the library's own code may refuse its numbers in any way
                continue
        if misfits := _misfits(shapes, shapes_of(candidate)):
            nearest = min((nearest or misfits, misfits), key=len)
            continue
        alike = build(recipe).to(next(network.parameters()).dtype).eval()
        alike.load_state_dict(network.state_dict())
        if _equal(expected, outputs(alike)):
            return recipe, alike
    raise ConfigError([refusal.format(_said(nearest))])


def _misfits(shapes: Mapping[str, tuple[int, ...]], others: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Tensors whose sizes differ, or that one of the networks lacks."""
    return [name for name in {**shapes, **others} if shapes.get(name) != others.get(name)]


def _said(misfits: list[str]) -> str:
    """The layers of these tensors, a few of them, as part of a sentence."""
    layers = list(dict.fromkeys(name.rpartition(".")[0] or name for name in misfits))
    more = f" and {len(layers) - NAMED} more" if len(layers) > NAMED else ""
    return f" (the nearest differs in {', '.join(layers[:NAMED])}{more})" if layers else ""


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
