"""Stacked parameters, the currency of the framework, and what is done with them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

from paramtrans.api.specs import BlockSpec
from paramtrans.errors import SpecMismatch

if TYPE_CHECKING:
    from torch import Tensor

Params: TypeAlias = "dict[str, Tensor]"
"""Stacked parameters: names as in `state_dict`, each tensor `[models, *shape]`."""


def models(params: Params) -> int:
    """How many models are stacked; 0 for a block without tensors."""
    return next((len(tensor) for tensor in params.values()), 0)


def take(params: Params, index: Sequence[int]) -> Params:
    """Some of the models, as a copy.

    Args:
        params: Stacked parameters, each `[models, *shape]`.
        index: Numbers of models, in the order wanted.

    Returns:
        Each `[len(index), *shape]`.
    """
    import torch

    order, on = torch.tensor(list(index), dtype=torch.long), {}
    for tensor in params.values():
        if tensor.device not in on:
            on[tensor.device] = order.to(tensor.device)
    return {name: tensor[on[tensor.device]] for name, tensor in params.items()}


def concatenate(stacks: Sequence[Params]) -> Params:
    """All models of several stacks, in order."""
    import torch

    return {name: torch.cat([stack[name] for stack in stacks]) for name in stacks[0]}


def join(parts: Mapping[str, Params]) -> Params:
    """Parts as one dictionary: `{"former": {"0.weight": w}}` → `{"former.0.weight": w}`."""
    return {f"{part}.{name}": tensor for part, params in parts.items() for name, tensor in params.items()}


def split(params: Params, part: str) -> Params:
    """The inverse of `join`, for one part.

    Args:
        params: Parameters of several parts, `part.name`.
        part: Which is wanted.

    Returns:
        Its parameters by `name`; the tensors are the same.
    """
    return {name.removeprefix(f"{part}."): t for name, t in params.items() if name.startswith(f"{part}.")}


def detach(params: Params) -> Params:
    """The same values, outside any graph, sharing memory."""
    return {name: tensor.detach() for name, tensor in params.items()}


def check(params: Params, spec: BlockSpec, what: str) -> None:
    """Hold parameters to a spec.

    Args:
        params: Stacked parameters, each `[models, *shape]`.
        spec: The tensors that they should be.
        what: What messages begin with.

    Raises:
        SpecMismatch: they are not exactly the tensors of `spec`, stacked.
    """
    if problems := list(_mismatches(params, spec)):
        more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise SpecMismatch(f"{what}: " + "; ".join(problems[:3]) + more)


def _mismatches(params: Params, spec: BlockSpec) -> Iterable[str]:
    expected = {tensor.name: tensor for tensor in spec.tensors}
    if missing := sorted(expected.keys() - params.keys()):
        yield f"missing {', '.join(missing)}"
    if extra := sorted(params.keys() - expected.keys()):
        yield f"unexpected {', '.join(extra)}"
    shared = [name for name in expected if name in params]
    count = models({name: params[name] for name in shared}) if shared else 0
    for name in shared:
        wanted, shape = (count, *expected[name].shape), tuple(params[name].shape)
        if wanted != shape:
            yield f"{name} has shape {list(shape)}, expected {list(wanted)} ([models, *shape])"
