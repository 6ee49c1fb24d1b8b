"""A part of a network run by itself, with whatever else its network calls it with."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from paramtrans.api.adapter import Part
from paramtrans.networks.forward.attention import with_plain_attention
from paramtrans.utils.fast_path import layer_by_layer
from paramtrans.utils.precision import HALF, widened


def feature_of(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor | None:
    """The features that a module is called with: the first tensor of real numbers, by position or name."""
    return next((value for value in [*args, *kwargs.values()] if _is_features(value)), None)


def split_output(output: Any) -> tuple[Tensor | None, int | None]:
    """The features that a module gives, and how many `None` it gives beside them in a tuple (None: no tuple)."""
    if isinstance(output, Tensor):
        return output, None
    if isinstance(output, tuple) and output and all(value is None for value in output[1:]):
        return (output[0] if isinstance(output[0], Tensor) else None), len(output) - 1
    return None, None


def cache_in(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """The cache of earlier positions that a module is called with; None where there is none.

    It takes two tensors `[batch, heads, positions, width]` and a layer's number (`update`), gives these with those of
    earlier positions, and says how many it has (`get_seq_length`), as caches of transformers do.
    """
    values = [*args, *kwargs.values()]
    return next((value for value in values if hasattr(value, "update") and hasattr(value, "get_seq_length")), None)


def _is_features(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def in_float32(part: Part) -> Part:
    """A part in half precision as one in float32, in which closed forms can be computed; any other as it is."""
    if part.entering.dtype not in HALF or not isinstance(part.run, PartRun):
        return part
    module, entering = copy.deepcopy(part.module).float(), part.entering.float()
    args, kwargs = tree_map_only(Tensor, widened, (part.run.args, dict(part.run.kwargs)))
    run = PartRun(module, args, kwargs)
    return Part(part.path, module, entering, run(entering), run)


@dataclass(frozen=True)
class PartRun:
    """A module, and what its network called it with once."""

    module: nn.Module
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    @torch.no_grad()
    def __call__(self, features: Tensor) -> Tensor:
        """What the module makes of other features, as many at once as it was called with.

        Args:
            features: `[n, ...]`.

        Returns:
            `[n, ...]`.
        """
        called_with = feature_of(self.args, self.kwargs)
        assert called_with is not None
        leaving = []
        with layer_by_layer(), with_plain_attention(self.module):
            for piece in features.split(len(called_with)):
                missing = len(called_with) - len(piece)
                args, kwargs = self._with(torch.cat([piece, piece[:1].expand(missing, *piece.shape[1:])]))
                output = split_output(self.module(*args, **kwargs))[0]
                assert output is not None
                leaving.append(output[: len(piece)])
        return torch.cat(leaving)

    def _with(self, features: Tensor) -> tuple[list[Any], dict[str, Any]]:
        """The same call with other features, in all places (`attention(x, x, x)`); all else, such as a cache, is a
        copy."""
        known = {id(feature_of(self.args, self.kwargs)): features}
        values = copy.deepcopy([*self.args, *self.kwargs.values()], known)
        return values[: len(self.args)], dict(zip(self.kwargs, values[len(self.args) :], strict=True))

    @torch.no_grad()
    def cache_layer(self) -> int | None:
        """The number of the layer in which the module keeps its positions in a cache; None where it keeps none."""
        args, kwargs = copy.deepcopy((self.args, dict(self.kwargs)))
        cache, layers = cache_in(args, kwargs), list[int]()
        if cache is None:
            return None
        update = cache.update

        def note(*given: Any, **named: Any) -> Any:
            layers.append([*inspect.signature(update).bind(*given, **named).arguments.values()][2])
            return update(*given, **named)

        cache.update = note
        self.module(*args, **kwargs)
        return min(layers, default=None)
