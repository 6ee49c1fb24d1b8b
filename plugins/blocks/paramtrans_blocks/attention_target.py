"""What families of targets for attention share: queries, keys and values of each position, mixed in another way."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from paramtrans.api.adapter import BlockAdapter, BlockOptions, Part
from paramtrans.api.stacking import Params
from paramtrans.errors import SpecMismatch
from paramtrans_blocks.heads import AttentionModule, Heads, HeadsOptions
from paramtrans_blocks.source_attention import attention_of, is_causal

JITTER = 1e-6
"""Of the mean second moment, added to each channel's, where inputs do not reach all directions."""


class AttentionTargetOptions(HeadsOptions):
    """Those of `heads`, which a block that stands in the place of attention takes over from it."""


class AttentionTarget(BlockAdapter):
    """A kind of block that takes the place of multi-head attention: over all positions, or causal, or with rotary
    positions."""

    Options: ClassVar[type[BlockOptions]] = AttentionTargetOptions
    options: AttentionTargetOptions
    channels_last: ClassVar[bool] = True

    @property
    def closing(self) -> str | None:  # type: ignore[override]
        return "closing" if self.options.closing else None

    @abstractmethod
    def module(self) -> AttentionModule: ...

    @classmethod
    def options_for(cls, part: Part) -> Mapping[str, Any]:
        """Heads, widths, skip, closing norm, mask and rotary positions of the attention that the block replaces."""
        if part.entering.ndim < 3 or part.entering.shape != part.leaving.shape:
            shapes = f"{list(part.leaving.shape)} of {list(part.entering.shape)}"
            raise SpecMismatch(f"it makes {shapes}, not [examples, positions, channels] of the same")
        source = attention_of(part)
        if source is None:
            return {"channels": part.entering.shape[-1], "skip": "none", "causal": is_causal(part)}
        return source[0].options.model_dump()

    def warm_start(self, part: Part) -> Params | None:
        """The layers of the attention that the block replaces, as far as it has the same ones."""
        source = attention_of(part)
        if source is None or (self.options.heads, self.options.width) != _heads_of(source[0]):
            return None
        attention, params = source
        initial = {name: tensor[None] for name, tensor in self.module().state_dict().items()}
        known = params | self.from_heads(params, attention, part.entering)
        started = {name: known.get(name, initial[name]) for name in self.spec.names}
        if any(tensor.shape != initial[name].shape for name, tensor in started.items()):
            return None  # as with other heads of keys than the attention has
        return {name: tensor.to(part.entering) for name, tensor in started.items()}

    def from_heads(self, params: Params, heads: Heads, entering: Tensor) -> Params:
        """Layers that are not the same, made of those of attention head by head; none unless overridden.

        Args:
            params: Tensors of the attention, `[1, ...]` each.
            heads: Its adapter.
            entering: Features that enter it, `[examples, positions, channels]`.
        """
        return {}


def _heads_of(heads: Heads) -> tuple[int, int]:
    return heads.options.heads, heads.options.width


def square_root(features: Tensor) -> Tensor:
    """L with L Lᵀ the second moments of features; lower triangular, invertible, in double precision.

    Args:
        features: `[..., channels]`.

    Returns:
        `[channels, channels]`.
    """
    rows = features.flatten(0, -2).double()
    moments = rows.mT @ rows / len(rows)
    moments.diagonal().add_(JITTER * moments.diagonal().mean().clamp_min(1e-12))
    root: Tensor = torch.linalg.cholesky(moments)
    return root


def with_one(features: Tensor) -> Tensor:
    """Features with a one behind them, which a bias is the weight of: `[..., channels]` → `[..., channels + 1]`."""
    return torch.cat([features, torch.ones_like(features[..., :1])], dim=-1)


def low_rank(weight: Tensor, rank: int, root: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The nearest product of two thinner matrices (Eckart and Young 1936), both of the same norm.

    Args:
        weight: `[..., out, in]`, real or complex.
        rank: Values between the two.
        root: Of the second moments of what enters, `[in, in]`, so that what leaves is nearest; None: the weight itself.

    Returns:
        `[..., out, rank]` and `[..., rank, in]`.
    """
    weighed = weight if root is None else weight @ root.to(weight.dtype)
    left, values, right = torch.linalg.svd(weighed, full_matrices=False)
    scale = values[..., :rank].sqrt()
    up, down = left[..., :rank] * scale[..., None, :], scale[..., None] * right[..., :rank, :]
    if root is not None:
        down = torch.linalg.solve_triangular(root.to(weight.dtype), down, upper=False, left=False)
    return up, down
