"""What the module of a block offers beside `forward`, where its adapter says so.

A module derives from these classes, or has methods of these names without deriving from anything.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Protocol, TypeAlias, TypeGuard

from paramtrans.errors import SpecMismatch

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


class BranchModule(Protocol):
    """A block that ends in a sum, of an adapter that is `rectified`, or has a `closing` or `readers`."""

    @abstractmethod
    def branch(self, x: Tensor, /) -> Tensor:
        """What is added to the input, or to `skip` of it.

        Args:
            x: What enters the block, `[batch, ...]`.

        Returns:
            The same shape.
        """


class SkipModule(BranchModule, Protocol):
    """A block whose branch is added not to its input but to something made of it."""

    @abstractmethod
    def skip(self, x: Tensor, /) -> Tensor:
        """What the branch is added to.

        Args:
            x: What enters the block, `[batch, ...]`.

        Returns:
            The shape of what `branch` gives, or one that goes with it, as that of `nothing` does.
        """


Keep: TypeAlias = "Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]"
"""From two tensors of new positions, `[batch, heads, positions, width]`, to the same of all positions so far."""


class ContinuedModule(Protocol):
    """A causal block over positions that says what of them a cache is to hold; without, it holds the features."""

    @abstractmethod
    def continued(self, x: Tensor, keep: Keep, /) -> Tensor:
        """What leaves the block at positions behind others.

        Args:
            x: What enters it there, `[batch, positions, channels]`.
            keep: Is called once, with what of these positions later ones need; gives that of all positions so far.

        Returns:
            `[batch, positions, channels]`.
        """


class ReadoutModule(BranchModule, Protocol):
    """A block of an adapter that names its `readout`; that ends the branch."""

    @abstractmethod
    def features(self, x: Tensor, /) -> Tensor:
        """What enters the readout.

        Args:
            x: What enters the block, `[batch, channels, ...]`.

        Returns:
            `[batch, hidden, ...]`.
        """


# By `hasattr`, as a method may also be a layer of that name, which `isinstance` does not see in every Python.


def has_branch(block: object) -> TypeGuard[BranchModule]:
    """Whether a block says what it adds."""
    return hasattr(block, "branch")


def has_skip(block: object) -> TypeGuard[SkipModule]:
    """Whether a block's branch is added to something else than its input."""
    return hasattr(block, "skip")


def has_features(block: object) -> TypeGuard[ReadoutModule]:
    """Whether a block says what enters its readout."""
    return hasattr(block, "features")


def has_continued(block: object) -> TypeGuard[ContinuedModule]:
    """Whether a block says what a cache is to hold of its positions."""
    return hasattr(block, "continued")


def nothing(x: Tensor) -> Tensor:
    """Zeros that go with whatever a branch makes of `x`, `[batch, ...]`: `[batch, 1, ...]`."""
    return x.new_zeros(len(x), *[1] * (x.ndim - 1))


def passed_on(block: object, x: Tensor) -> Tensor:
    """What a block's branch is added to: the input, unless it says otherwise."""
    return block.skip(x) if has_skip(block) else x


def summed(block: object) -> Callable[[Tensor], Tensor]:
    """From what enters a block to the sum that it ends in; raises `SpecMismatch` where it has no branch."""
    if not has_branch(block):
        raise SpecMismatch(f"{type(block).__name__} has no method `branch`, which its adapter promises")
    branch = block.branch
    return lambda x: branch(x) + passed_on(block, x)


def read_out(block: object) -> Callable[[Tensor], Tensor]:
    """From what enters a block to what enters its readout; raises `SpecMismatch` where it does not say."""
    if not has_features(block):
        raise SpecMismatch(f"{type(block).__name__} has no method `features`, which its adapter promises")
    return block.features
