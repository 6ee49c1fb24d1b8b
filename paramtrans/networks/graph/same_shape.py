"""Examples in batches of one shape, as a captured program takes no others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from paramtrans.networks.forward.activations import Inputs, arguments, per_example
from paramtrans.networks.forward.examples import Examples
from paramtrans.networks.graph.capture import Arguments

MOST_SHAPES = 32
"""Shapes of examples that are gone through, those of most examples; each takes two programs."""


def by_shape(examples: Examples, size: int) -> list[tuple[list[Arguments], list[Arguments]]]:
    """Batches of examples of one shape, shape by shape.

    Args:
        examples: All, in batches of any size, and which of them are kept aside.
        size: Most examples of a batch; all batches of one shape have as many.

    Returns:
        For each of the shapes, those of most examples first: batches to fit to, and batches of examples kept aside.
    """
    fit, aside = dict[str, list[tuple[Inputs, int]]](), dict[str, list[tuple[Inputs, int]]]()
    begin = 0
    for batch, count in zip(examples.batches, examples.sizes, strict=True):
        is_aside = examples.aside(torch.arange(begin, begin + count))
        begin += count
        for chosen, mask in ((fit, ~is_aside), (aside, is_aside)):
            chosen.setdefault(str(_shapes(batch)), []).extend((batch, i) for i in mask.nonzero()[:, 0].tolist())
    batches = []
    for shape, chosen_examples in sorted(fit.items(), key=lambda item: -len(item[1]))[:MOST_SHAPES]:
        if chosen_examples:
            at_once = min(size, len(chosen_examples))
            batches.append((_cyclic(chosen_examples, at_once), _cyclic(aside.get(shape, []), at_once)))
    return batches


def _cyclic(chosen: list[tuple[Inputs, int]], size: int) -> list[Arguments]:
    """Batches of `size`, as a program takes no other; what is left over begins again from the front."""
    return [
        _together([chosen[(start + i) % len(chosen)] for i in range(size)]) for start in range(0, len(chosen), size)
    ]


def _shapes(batch: Inputs) -> object:
    return tree_map(lambda leaf: tuple(leaf.shape[1:]) if isinstance(leaf, Tensor) else leaf, arguments(batch))


def _together(chosen: Sequence[tuple[Inputs, int]]) -> Arguments:
    """Examples of several batches as one."""
    first_batch = chosen[0][0]
    if not isinstance(first_batch, Mapping):
        return (torch.cat([arguments(batch)[0][0][i : i + 1] for batch, i in chosen]),), {}
    names = per_example(first_batch)
    return (), {
        name: torch.cat([arguments(batch)[1][name][i : i + 1] for batch, i in chosen]) if name in names else value
        for name, value in first_batch.items()
    }
