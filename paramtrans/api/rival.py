"""Rivals: ways to fill the target block without the translator."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from paramtrans.api.adapter import BlockAdapter
from paramtrans.api.options import BaseOptions, Configurable

if TYPE_CHECKING:
    from paramtrans.api.hosts import Hosts
    from paramtrans.api.stacking import Params


@dataclass(frozen=True)
class RivalCase:
    """What a rival may use: the hosts whose slot it fills, the training pairs, both adapters, and its seed."""

    hosts: Hosts
    pairs: Hosts | None
    source: BlockAdapter
    target: BlockAdapter
    seed: int


class Rival(Configurable, ABC):
    """A way to fill the target block without the translator, reported beside it."""

    needs_pairs: ClassVar[bool] = False
    """Whether it draws on training hosts with trained targets."""

    def __init__(self, options: BaseOptions) -> None:
        self.options = options

    @abstractmethod
    def fill(self, case: RivalCase) -> Params:
        """Fill the hosts' slot.

        Args:
            case: The hosts, and what may be used beside them.

        Returns:
            Stacked tensors of `case.target.spec`, each `[hosts, *shape]`, in the order of `case.hosts`.
        """
