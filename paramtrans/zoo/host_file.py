"""Finished hosts from a safetensors file of the user's: `former.*`, `source.*`, `latter.*`, perhaps `target.*`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import safetensors
import torch
from safetensors.torch import load

from paramtrans.api.hosts import in_network
from paramtrans.api.specs import TensorSpec
from paramtrans.api.stacking import Params, split, take
from paramtrans.errors import StoreError
from paramtrans.storage import outside
from paramtrans.utils.counts import counted

MAX_BYTES = 4 * 2**30
"""A larger file is refused unread."""


class HostFile:
    """Stacked parameters of hosts trained elsewhere, the first axis of each tensor the host.

    Raises `StoreError` where there is no such file, it is no safetensors file, or it does not hold whole hosts.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if outside.size(path) > MAX_BYTES:
            raise StoreError(f"{path}: larger than {MAX_BYTES:,} bytes; cut it into files of fewer hosts")
        content = outside.content(path, MAX_BYTES)
        self.digest = hashlib.sha256(content).hexdigest()
        try:
            self.tensors: Params = dict(sorted(load(content).items()))  # it has them in any order
        except safetensors.SafetensorError as error:
            raise StoreError(f"{path}: not a safetensors file ({error})") from error

    @property
    def count(self) -> int:
        """How many hosts there are."""
        first = next(iter(self.tensors.values()), torch.empty(0))
        return len(first) if first.ndim else 0

    def hosts(self, start: int, stop: int) -> Params:
        """`former.*`, `source.*` and `latter.*` of some hosts."""
        whole = {name: tensor for name, tensor in self.tensors.items() if not name.startswith("target.")}
        return take(whole, range(start, stop))

    def network(self, number: int) -> Params:
        """One host as the state of a network; raises `StoreError` where there is no whole one of that number."""
        if not self.count or any(not t.ndim or len(t) != self.count for t in self.tensors.values()):
            raise StoreError(f"{self.path}: is no file of hosts: not all tensors have an entry for each of them")
        if number >= self.count:
            raise StoreError(
                f"{self.path}: has {counted(self.count, 'host')}, counted from 0, and so no number {number}"
            )
        return network_state(self.hosts(number, number + 1), 0)

    def targets(self, start: int, stop: int) -> Params:
        """`target.*` of some hosts."""
        whole = {name: tensor for name, tensor in self.tensors.items() if name.startswith("target.")}
        return take(whole, range(start, stop))

    def has_targets(self, specs: Iterable[TensorSpec]) -> bool:
        """Whether each host comes with a trained target of this kind."""
        shapes = {name: tuple(tensor.shape[1:]) for name, tensor in split(self.tensors, "target").items()}
        return bool(shapes) and shapes == {spec.name: spec.shape for spec in specs}

    def check(self, specs: Iterable[TensorSpec], count: int) -> None:
        """Hold the file to what a config's hosts are.

        Args:
            specs: Tensors of `former.*`, `source.*` and `latter.*` of one host.
            count: How many hosts are wanted.

        Raises:
            StoreError: it does not hold so many hosts of these tensors.
        """
        expected = {spec.name: spec.shape for spec in specs}
        tensors = {name: tensor for name, tensor in self.tensors.items() if not name.startswith("target.")}
        if missing := sorted(expected.keys() - tensors.keys()):
            raise StoreError(f"{self.path}: lacks {', '.join(missing)}; name tensors as the hosts of this config do")
        if extra := sorted(tensors.keys() - expected.keys()):
            raise StoreError(f"{self.path}: holds {', '.join(extra)}, which the hosts of this config do not have")
        for name, tensor in self.tensors.items():
            shape = (self.count, *expected[name]) if name in expected else (self.count, *tensor.shape[1:])
            if tuple(tensor.shape) != shape or tensor.dtype != torch.float32:
                kind = f"{tensor.dtype} of shape {list(tensor.shape)}"
                raise StoreError(f"{self.path}: {name} is {kind}, expected torch.float32 of shape {list(shape)}")
        if count > self.count:
            raise StoreError(f"{self.path}: has {counted(self.count, 'host')}; zoo.report asks for {count}")


def network_state(hosts: Params, number: int) -> Params:
    """One of some hosts as the state of a network, `former.*`, `block.*` and `latter.*`, without the stack's axis."""
    return {in_network(name): tensor[number].clone() for name, tensor in hosts.items()}
