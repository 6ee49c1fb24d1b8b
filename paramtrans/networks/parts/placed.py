"""A block in place of a module that is called with more than features, or gives more than one tensor."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

import torch
from torch import Tensor, nn

from paramtrans.api.block_module import has_continued
from paramtrans.errors import SpecMismatch
from paramtrans.networks.blocks.in_place import take_place
from paramtrans.networks.parts.encoders import keep_layer_by_layer
from paramtrans.networks.parts.running import cache_in, feature_of


@dataclass(frozen=True)
class Calling:
    """How a network calls a module, and takes what it gives."""

    alone: bool
    """Whether features are all that it is called with, by position."""
    beside: int | None
    """How many `None` it gives beside its features, in a tuple; None: the features alone."""
    cache: int | None = None
    """The layer of a cache of earlier positions in which it keeps its own; None: it has no cache."""
    tensors: tuple[str, ...] | None = None
    """Arguments that are tensors of real or logical numbers, such as masks, beside the features: names, or places.
    None: not known."""


_begun: WeakKeyDictionary[Any, WeakSet[nn.Module]] = WeakKeyDictionary()
"""The blocks that a cache came to in which they keep nothing."""


class Placed(nn.Module):
    """A block that is called as the module was whose place it takes.

    Earlier positions are in the cache that the network calls it with, if it does: what the block wants kept, or else
    the features of these positions, of which the block is then computed anew.
    """

    def __init__(self, block: nn.Module, calling: Calling) -> None:
        super().__init__()
        self.block, self.calling = block, calling

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Whatever the module was called with → what it gave, with the block's features.

        Raises:
            SpecMismatch: it is called with a mask that it was not fitted with, with a cache of another kind, or goes
                on from one where it was translated without.
        """
        self._refuse_others(args, kwargs)
        features = feature_of(args, kwargs)
        assert features is not None
        cache = cache_in(args, kwargs)
        if cache is not None and self.calling.cache is None:
            self._begin_without(cache)
            cache = None
        leaving = self.block(features) if cache is None else self._behind(features, cache)
        return leaving if self.calling.beside is None else (leaving, *[None] * self.calling.beside)

    def _refuse_others(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        known = self.calling.tensors
        if torch.compiler.is_compiling():
            return  # masks that are None otherwise are written out for a program
        others = [] if known is None else [name for name in tensors_beside(args, kwargs) if name not in known]
        if others:
            raise SpecMismatch(
                f"{type(self.block).__name__}: is called with {others[0]}, as it was not when it was translated, and "
                "which does not reach it; give inputs of one length without padding"
            )

    def _begin_without(self, cache: Any) -> None:
        """Raise where a cache comes again that the block keeps nothing in: it would not see earlier positions."""
        if torch.compiler.is_compiling() or not isinstance(cache, Hashable):
            return
        blocks = _begun.setdefault(cache, WeakSet())
        if self in blocks:
            raise SpecMismatch(
                f"{type(self.block).__name__}: is called with a cache, as it was not when it was translated; call with "
                "use_cache=False, or translate with inputs for which the network uses one"
            )
        blocks.add(self)

    def _behind(self, features: Tensor, cache: Any) -> Tensor:
        """What leaves the block at positions whose earlier ones a cache may hold: `[batch, positions, channels]`."""

        def keep(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
            both: tuple[Tensor, Tensor] = cache.update(first, second, self.calling.cache)
            if both[0].shape[-2] != cache.get_seq_length(self.calling.cache):
                raise SpecMismatch(
                    f"{type(cache).__name__}: does not hold all positions and no others, as a block of another "
                    "architecture needs it; use a cache that grows, or none (use_cache=False)"
                )
            return both

        if has_continued(self.block):
            return self.block.continued(features, keep)
        every, _ = keep(features[:, None], features[:, None, :, :0])
        of_all: Tensor = self.block(every[:, 0])
        return of_all[:, -features.shape[1] :]


def tensors_beside(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[str, ...]:
    """Names or places of tensors beside features that are no whole numbers."""
    named = [*((str(place), value) for place, value in enumerate(args)), *kwargs.items()]
    features = feature_of(args, kwargs)
    return tuple(
        name
        for name, value in named
        if isinstance(value, Tensor)
        and value is not features
        and (value.is_floating_point() or value.dtype == torch.bool)
    )


def put_part(network: nn.Module, path: str, block: nn.Module, calling: Calling) -> None:
    """Put a block in the place of a module.

    Args:
        network: Is changed.
        path: Of the module.
        block: Features → features.
        calling: How the network calls it.
    """
    simple = calling.alone and calling.beside is None
    take_place(network, path, block if simple else Placed(block, calling))
    keep_layer_by_layer(network, path)
