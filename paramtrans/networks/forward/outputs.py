"""The tensors of what a network gives."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import Tensor

NO_TENSORS = (
    "the network gives no tensors, alone or in lists, dictionaries or dataclasses, so that nothing can be compared; "
    "let its forward return tensors"
)


def tensors_in(output: Any) -> list[Tensor]:
    """All tensors of what a network gives: in lists, tuples, dictionaries, and dataclasses, in their order."""
    return [tensor for _, tensor in _named(output)]


def named_outputs(output: Any) -> dict[str, Tensor]:
    """The floating-point ones of `tensors_in`, by keys, fields and positions; "" where it is one tensor alone."""
    return {name: tensor for name, tensor in _named(output) if tensor.is_floating_point()}


def first_output(output: Any, count: int) -> Tensor | None:
    """The first of `named_outputs` with an entry for each example; None where there is none.

    Args:
        output: What a network gives.
        count: Examples. Of one alone, such as a graph whose nodes have an entry each, it may be any first axis.
    """
    tensors = named_outputs(output).values()
    of_one = next((tensor for tensor in tensors if tensor.ndim), None) if count == 1 else None
    return next((tensor for tensor in tensors if has_examples(tensor, count)), of_one)


def has_examples(tensor: Tensor, count: int) -> bool:
    """Whether an output has an entry for each of so many examples on its first axis, as a loss, say, has not."""
    return tensor.ndim > 0 and len(tensor) == count


def _named(output: Any) -> Iterator[tuple[str, Tensor]]:
    if isinstance(output, Tensor):
        yield "", output
        return
    for name, item in _items(output):
        for path, tensor in _named(item):
            yield f"{name}.{path}" if path else str(name), tensor


def _items(output: Any) -> Iterable[tuple[Any, Any]]:
    if isinstance(output, Mapping):
        return output.items()
    if isinstance(output, list | tuple):
        return enumerate(output)
    if dataclasses.is_dataclass(output) and not isinstance(output, type):
        return [(field.name, getattr(output, field.name, None)) for field in dataclasses.fields(output)]
    return ()
