"""Block adapters: all that is known about one kind of block."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import PositiveInt

from paramtrans.api.modules import tensor_specs
from paramtrans.api.options import BaseOptions, Configurable
from paramtrans.api.specs import BlockSpec, FeatureSpec, Reader, RotationGroup, SymmetryGroup, SymmetryMember
from paramtrans.errors import SpecMismatch
from paramtrans.utils.boundary import reason

if TYPE_CHECKING:
    from torch import Tensor, nn

    from paramtrans.api.runner import Stacked
    from paramtrans.api.stacking import Params


class BlockOptions(BaseOptions):
    """What every block needs to know; adapters add their own sizes."""

    channels: PositiveInt
    """Channels of the features that enter the block; must equal the slot's."""


@dataclass(frozen=True)
class Recognised:
    """A block that stands in an existing module, as an adapter sees it."""

    options: Mapping[str, Any]
    """The adapter's options."""
    layers: Mapping[str, str]
    """Layers of the adapter's module, each with the path of the layer in the existing one that it is. What enters the
    first enters the block; what leaves the last reader, or the normalisation behind it, is the branch."""
    whole: bool = False
    """Whether the existing module gives just what the adapter's does; else its code goes on with the branch."""


@dataclass(frozen=True)
class Part:
    """A module with one tensor in and one out, as it stands in a network, seen on a few examples.

    What else it is called with (masks, positions) does not reach a block that takes its place.
    """

    path: str
    """Dotted path from the network."""
    module: nn.Module
    """The module, with its parameters. It is not to be changed."""
    entering: Tensor
    """Features that enter it, `[examples, ...]`."""
    leaving: Tensor
    """What it makes of them, `[examples, ...]`."""
    run: Callable[[Tensor], Tensor] | None = None
    """What the module makes of other features, with whatever else it was called with: `[n, ...]` of the shape of
    `entering`, but for their number. Every layer is run by itself, so that a `TorchFunctionMode` sees them."""


class BlockAdapter(Configurable, ABC):
    """One kind of block at given sizes. A plugin implements `Options` and `module`; the rest has a default.

    >>> import torch
    >>> from torch import nn
    >>> class Pointwise(BlockAdapter):
    ...     def module(self):
    ...         return nn.Conv2d(self.options.channels, self.options.channels, kernel_size=1)
    >>> Pointwise(BlockOptions(channels=4)).spec.names
    ('weight', 'bias')
    """

    Options: ClassVar[type[BlockOptions]] = BlockOptions

    reading_options: ClassVar[frozenset[str]] = frozenset()
    """Options that matter to `read` alone, so that zoos do not differ by them."""

    rectified: ClassVar[bool] = False
    """Whether the block ends in a ReLU of input plus branch. Its module is then a `BranchModule`, or a `SkipModule`."""

    closing: ClassVar[str | None] = None
    """Name of the LayerNorm that the sum of input and branch passes in the end (post-norm transformers), if one does.
    The module is then a `BranchModule`, or a `SkipModule`."""

    channels_last: ClassVar[bool] = False
    """Whether features are `[batch, ..., channels]`, as in transformers, and not `[batch, channels, ...]`."""

    axes: int = 2
    """How many axes of positions features have, beside those of examples and channels: 2 for images, 1 for signals and
    tokens, 0 for rows of a table."""

    keeps_shape: bool = True
    """Whether what leaves the block has the shape of what enters it."""

    positionwise: ClassVar[bool] = False
    """With `channels_last`: whether each position is computed alone, so that positions may serve as examples."""

    readout: ClassVar[str | None] = None
    """Name of the Linear or convolution that ends the branch, where no normalisation stands behind it; translators may
    solve for it. The module is then a `ReadoutModule`."""

    def __init__(self, options: BlockOptions) -> None:
        self.options = options

    @abstractmethod
    def module(self) -> nn.Module:
        """A fresh block, initialised as PyTorch does by default: `[batch, channels, ...]` → `[batch, ...]`."""

    def stacked(self) -> Stacked | None:
        """A faster way to run many of these blocks at once than the defaults of `paramtrans.backends.vmap`, or None.

        It must equal `torch.func.vmap` over `module()`; the tests hold every registered adapter to that.
        """
        return None

    def symmetries(self) -> tuple[SymmetryGroup, ...]:
        """Changes of the parameters that leave the function unchanged, as data; none unless declared."""
        return ()

    def rotations(self) -> tuple[RotationGroup, ...]:
        """Values that may be rotated, and the block's function stays; none unless declared."""
        return ()

    def readers(self) -> tuple[Reader, ...]:
        """Layers that read hidden units, in the order in which features pass them; the last one ends the branch."""
        return () if self.readout is None else (Reader(self.readout),)

    def units(self, reader: Reader) -> SymmetryGroup | None:
        """The hidden units that a reader reads.

        Args:
            reader: One of `readers()`.

        Returns:
            The symmetry group that runs over axis 1 of its weight; None where none is declared.
        """
        read = [
            g for g in self.spec.symmetries for m in g.members if (m.tensor, m.axis) == (f"{reader.layer}.weight", 1)
        ]
        return read[0] if read else None

    def stream(self) -> tuple[SymmetryMember, ...]:
        """Axes that run over the channels entering and leaving the block; none unless declared."""
        return ()

    @classmethod
    def recognise(cls, module: nn.Module) -> Sequence[Recognised]:
        """Blocks of this kind among the layers of an existing module, for whole networks; none unless overridden.

        Names and layers may be taken at their word: what a block computes is compared with `module()` afterwards.

        Args:
            module: Any module of a user's network; it is not changed.

        Returns:
            One record for each block that may stand there.
        """
        return ()

    def with_sizes(self, sizes: Mapping[str, int]) -> BlockAdapter:
        """The same kind of block with other numbers of hidden units.

        Args:
            sizes: Numbers of units by symmetry group; groups that are not named keep theirs.

        Returns:
            An adapter of the same class.

        Raises:
            SpecMismatch: this kind of block does not say how it is made with fewer units, or not with so many.
        """
        raise SpecMismatch(f"{type(self).__name__} does not say how it is made with fewer hidden units (`with_sizes`)")

    @classmethod
    def options_for(cls, part: Part) -> Mapping[str, Any]:
        """Options with which a block of this kind can take the place of a part of a network; those that the user names
        are put in their place.

        Args:
            part: The part, with features that enter and leave it.

        Returns:
            Options by name; those that are left out have their defaults.

        Raises:
            SpecMismatch: no block of this kind can.
        """
        return {"channels": part.entering.shape[-1 if cls.channels_last else 1]}

    def warm_start(self, part: Part) -> Params | None:
        """This block's tensors made in closed form of those of a part, to go on from by feature matching.

        Args:
            part: The part, with features that enter and leave it.

        Returns:
            Tensors of `spec`, `[1, ...]` each; None where there is no closed form, so that it begins at random.
        """
        return None

    @property
    def token_width(self) -> int:
        """Natural number of values in a token, such as a convolution's kernel area; 0 leaves it to the translator."""
        return 0

    @cached_property
    def spec(self) -> BlockSpec:
        """The block's tensors, read off `module()` without allocating it."""
        import torch

        with torch.device("meta"):
            tensors = tensor_specs(self.module())
        return BlockSpec(tensors, self.symmetries(), self.stream(), self.token_width, self.rotations())

    @property
    def reading(self) -> BlockSpec:
        """What `read` returns: the tensors a translator sees of a source block."""
        return self.spec

    def read(self, params: Params) -> Params:
        """The block's parameters as a translator should see them (for instance with normalisation folded).

        Args:
            params: Stacked tensors of `spec`, each `[models, *shape]`; they are not changed.

        Returns:
            Stacked tensors of `reading`.
        """
        return params


def check_fit(name: str, adapter: BlockAdapter, slot: FeatureSpec, leaving: FeatureSpec) -> None:
    """Hold a block to the slot that it is to stand in.

    Args:
        name: What to call the block in messages: `source`, `target`.
        adapter: The block.
        slot: The features that enter the slot.
        leaving: Those that leave it.

    Raises:
        SpecMismatch: it does not map the ones to the others.
    """
    import torch

    if adapter.options.channels != slot.channels:
        raise SpecMismatch(f"channels: {name} has {adapter.options.channels}, the host's slot has {slot.channels}")
    axis = len(slot.shape) - 1 if adapter.channels_last else 0
    if axis != slot.channel_axis:
        place = "last" if adapter.channels_last else "first"
        raise SpecMismatch(f"{name} has its channels in the {place} axis of an example, the host's slot in another")
    try:
        with torch.device("meta"):
            output = tuple(adapter.module()(torch.empty(2, *slot.shape)).shape)
    except RuntimeError as error:
        raise SpecMismatch(f"{name} cannot be run on features of {slot}: {reason(error)}") from error
    if output != (2, *leaving.shape):
        raise SpecMismatch(f"{name} maps features [2, {slot}] to {list(output)}; [2, {leaving}] have to leave the slot")
