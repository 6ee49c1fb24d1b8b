"""Probes: network inputs on which translators compare what blocks compute."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pydantic import PositiveInt

from paramtrans.api.adapter import BlockAdapter
from paramtrans.api.options import BaseOptions, Configurable

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from paramtrans.api.hosts import Hosts
    from paramtrans.api.task import Task


class ProbeOptions(BaseOptions):
    """What all probes share."""

    count: PositiveInt = 64
    """How many inputs."""


@dataclass(frozen=True)
class ProbeCase:
    """What probes may look at: the shape of one network input, the task, the hosts, and where all chance comes from."""

    shape: tuple[int, ...]
    generator: torch.Generator
    task: Task | None = None
    hosts: Hosts | None = None
    """The hosts whose blocks are compared."""
    source: BlockAdapter | None = None
    """The adapter of their source blocks."""
    network: nn.Module | None = None
    """Instead of hosts of a task: a copy of the network that inputs are wanted for, in eval mode."""


class Probes(Configurable, ABC):
    """Network inputs on which translators compare what blocks compute."""

    Options: ClassVar[type[BaseOptions]] = ProbeOptions
    own_inputs: ClassVar[bool] = False
    """Whether each host gets inputs of its own."""
    real: ClassVar[bool] = False
    """Whether they are examples of the task, which a user has to have."""

    def __init__(self, options: ProbeOptions) -> None:
        self.options = options

    @abstractmethod
    def draw(self, case: ProbeCase) -> Tensor:
        """Network inputs to compare blocks on; a seed of the case's generator gives the same again.

        Args:
            case: The shape of an input, and all that inputs may be drawn from.

        Returns:
            `[count, *shape]`; with `own_inputs` `[models, count, *shape]`.

        Raises:
            SpecMismatch: the case lacks what is needed, or the shape does not suit.
        """
