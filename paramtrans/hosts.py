"""Stacked parameters, the currency of the framework, and the record of hosts that is made of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from paramtrans.errors import SpecMismatch
from paramtrans.specs import BlockSpec

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Params: TypeAlias = "dict[str, Tensor]"
"""Stacked parameters: names as in `state_dict`, each tensor `[models, *shape]`."""

PARTS = ("former", "source", "latter", "target")


@dataclass(frozen=True)
class Hosts:
    """Hosts of one task, stacked: former, source and latter blocks, and the trained target where there is one."""

    former: Params
    source: Params
    latter: Params
    target: Params | None = None
    seeds: tuple[int, ...] = ()
    stream: Mapping[str, int] = field(default_factory=dict)
    """Tensors of `former.*` and `latter.*` with the axis that runs over the slot's channels, as the task declares."""

    def __len__(self) -> int:
        return models(self.source)

    def pick(self, index: Sequence[int] | slice | Tensor) -> Hosts:
        """The hosts at `index`, in that order."""
        if isinstance(index, slice):
            index = range(len(self))[index]
        # A tensor as a list at once: elements one by one are slow.
        order = [int(i) for i in (index if isinstance(index, Sequence) else index.tolist())]
        picked = {part: take(params, order) for part, params in self.parts().items()}
        return self._with(picked, tuple(self.seeds[i] for i in order) if self.seeds else ())

    def parts(self) -> dict[str, Params]:
        """The parts that are present, by name."""
        named = {part: getattr(self, part) for part in PARTS}
        return {part: params for part, params in named.items() if params is not None}

    @staticmethod
    def of(stacks: Sequence[Hosts]) -> Hosts:
        """All hosts of several stacks, in order; with trained targets where all of them have some."""
        first, names = stacks[0], set.intersection(*(set(stack.parts()) for stack in stacks))
        parts = {
            part: concatenate([stack.parts()[part] for stack in stacks]) for part in first.parts() if part in names
        }
        return first._with(parts, tuple(seed for stack in stacks for seed in stack.seeds))

    def to(self, device: torch.device | str) -> Hosts:
        moved = {part: {k: v.to(device) for k, v in params.items()} for part, params in self.parts().items()}
        return self._with(moved, self.seeds)

    def surroundings(self) -> Tensor:
        """What stands around the slot, channel by channel: `[models, channels, values]`, from the declared `stream`."""
        import torch

        parts = join({"former": self.former, "latter": self.latter})
        if not self.stream:
            return torch.empty(len(self), 0, 0)
        channels = [parts[name].movedim(axis + 1, 1) for name, axis in sorted(self.stream.items())]
        return torch.cat([tensor.reshape(*tensor.shape[:2], -1) for tensor in channels], dim=2)

    def _with(self, parts: dict[str, Params], seeds: tuple[int, ...]) -> Hosts:
        target = parts.get("target")
        return Hosts(parts["former"], parts["source"], parts["latter"], target, seeds, self.stream)


def models(params: Params) -> int:
    """How many models are stacked; 0 for a block without tensors."""
    return next((len(tensor) for tensor in params.values()), 0)


def take(params: Params, index: Sequence[int]) -> Params:
    """The models at `index`, as a copy."""
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
    """The inverse of `join`, for one part."""
    return {name.removeprefix(f"{part}."): t for name, t in params.items() if name.startswith(f"{part}.")}


def detach(params: Params) -> Params:
    """The same values, outside any graph, sharing memory."""
    return {name: tensor.detach() for name, tensor in params.items()}


def check(params: Params, spec: BlockSpec, what: str) -> None:
    """Raise `SpecMismatch`, beginning with `what`, unless `params` holds exactly the tensors of `spec`, stacked."""
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
        wanted, found = (count, *expected[name].shape), tuple(params[name].shape)
        if wanted != found:
            yield f"{name} has shape {list(found)}, expected {list(wanted)} ([models, *shape])"
