"""Hosts of one task, stacked: the record that is made of stacked parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from paramtrans.api.stacking import concatenate, join, models, split, take

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from paramtrans.api.stacking import Params

PARTS = ("former", "source", "latter", "target")


def in_network(name: str) -> str:
    """A tensor's name, or a part's, in a whole network: what hosts call the source is the block in the slot."""
    part, dot, rest = name.partition(".")
    return ("block" if part == "source" else part) + dot + rest


def in_hosts(name: str) -> str:
    """A tensor's name, or a part's, in hosts and their files: the block in a network's slot is the source."""
    part, dot, rest = name.partition(".")
    return ("source" if part == "block" else part) + dot + rest


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
        """Some of the hosts, as a copy.

        Args:
            index: Numbers of hosts, in the order wanted.

        Returns:
            Stacks of that many models.
        """
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

    @classmethod
    def from_network(
        cls,
        params: Params,
        target: Params | None = None,
        seeds: Sequence[int] = (),
        stream: Mapping[str, int] | None = None,
    ) -> Hosts:
        """Hosts from tensors of whole networks.

        Args:
            params: Stacked `former.*`, `block.*` (or `source.*`, as in files) and `latter.*`, each `[models, *shape]`.
            target: Trained target blocks, stacked, where there are some.
            seeds: The seed of each host, where it is known.
            stream: Tensors of `former.*` and `latter.*` with the axis that runs over the slot's channels.

        Returns:
            The same tensors by the part of the network that they belong to.
        """
        named = {in_hosts(name): tensor for name, tensor in params.items()}
        former, source, latter = (split(named, part) for part in ("former", "source", "latter"))
        return cls(former, source, latter, target, tuple(seeds), stream or {})

    @staticmethod
    def of(stacks: Sequence[Hosts]) -> Hosts:
        """All hosts of several stacks, in order; with trained targets where all of them have some.

        Args:
            stacks: Hosts of one kind.

        Returns:
            One stack.
        """
        first, names = stacks[0], set.intersection(*(set(stack.parts()) for stack in stacks))
        parts = {
            part: concatenate([stack.parts()[part] for stack in stacks]) for part in first.parts() if part in names
        }
        return first._with(parts, tuple(seed for stack in stacks for seed in stack.seeds))

    def to(self, device: torch.device | str) -> Hosts:
        """The same on another device.

        Args:
            device: As torch names it.

        Returns:
            Hosts; tensors that are there already are not copied.
        """
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
