"""What stands around the blocks that are translated: their hosts, and what enters them on probes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from paramtrans.errors import SpecMismatch

if TYPE_CHECKING:
    from torch import Tensor

    from paramtrans.api.hosts import Hosts
    from paramtrans.api.runner import Runner
    from paramtrans.api.stacking import Params

PROBES_AT_ONCE = 64
"""Probes go through hosts in pieces of this size, so that memory does not grow with them."""


@dataclass(frozen=True)
class Entering:
    """Features that enter a slot on some probes, each `[models, batch, *slot]`."""

    reached: Tensor
    """What the target block will be given, behind all that was translated before it."""
    original: Tensor
    """What the source block is given in the untouched network; the same as `reached` in a host."""


@dataclass(frozen=True)
class Context:
    """What stands around the blocks to be translated, for translators that look at it, in one order."""

    hosts: Hosts | None = None
    """The hosts whose source blocks are translated; None for a block of a network that is no host."""
    runner: Runner | None = None
    inputs: Tensor | None = None
    """Network inputs to compare what blocks compute on (probes): `[n, ...]`, the same for all hosts."""
    own_inputs: bool = False
    """Whether each host has inputs of its own: `[models, n, ...]`."""
    start: Params | None = None
    """Target blocks to improve on, where another translator went before."""
    seed: int = 0
    """For whatever is drawn at random."""

    @property
    def count(self) -> int:
        """How many examples `entering` gives; 0 where that is not known before."""
        return 0 if self.inputs is None else self.inputs.shape[int(self.own_inputs)]

    def entering(self) -> Iterator[Entering]:
        """What enters the slot on the probes, in pieces of at most `PROBES_AT_ONCE` probes.

        Yields:
            Features `[models, batch, *slot]`; all probes together, in order.

        Raises:
            SpecMismatch: there are no hosts, or no probes.
        """
        if self.hosts is None or self.runner is None or self.inputs is None:
            raise SpecMismatch("this translator compares what blocks compute; give it a context with hosts and probes")
        inputs = self.inputs if self.own_inputs else self.inputs.expand(len(self.hosts), *self.inputs.shape)
        for piece in inputs.split(PROBES_AT_ONCE, dim=1):
            features = self.runner.former(self.hosts.former, piece)
            yield Entering(features, features)

    def pick(self, index: Sequence[int] | slice | Tensor) -> Context:
        """The same for some of the hosts.

        Args:
            index: Numbers of hosts, in the order wanted.

        Returns:
            A context of these hosts, as a copy.

        Raises:
            SpecMismatch: there are no hosts to pick from.
        """
        if self.hosts is None:
            raise SpecMismatch("a context without hosts has one model, and nothing to pick from")
        chosen = range(len(self.hosts))[index] if isinstance(index, slice) else [int(i) for i in index]
        start = None if self.start is None else {name: t[list(chosen)] for name, t in self.start.items()}
        inputs = self.inputs[list(chosen)] if self.own_inputs and self.inputs is not None else self.inputs
        return replace(self, hosts=self.hosts.pick(chosen), inputs=inputs, start=start)
