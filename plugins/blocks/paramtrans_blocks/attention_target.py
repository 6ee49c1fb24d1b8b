"""What families of targets for attention share: queries, keys and values of each position, mixed in another way."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from paramtrans.api.adapter import BlockAdapter, BlockOptions, Part
from paramtrans.api.block_module import SkipModule
from paramtrans.api.stacking import Params
from paramtrans.errors import SpecMismatch
from paramtrans_blocks.heads import Heads, HeadsOptions
from paramtrans_blocks.source_attention import attention_of


class AttentionTargetOptions(HeadsOptions):
    """Those of `heads`, which a block that stands in the place of attention takes over from it."""


class AttentionTarget(BlockAdapter):
    """A kind of block that takes the place of multi-head attention over positions, without a mask."""

    Options: ClassVar[type[BlockOptions]] = AttentionTargetOptions
    options: AttentionTargetOptions
    channels_last: ClassVar[bool] = True

    @property
    def closing(self) -> str | None:  # type: ignore[override]
        return "closing" if self.options.closing else None

    @abstractmethod
    def module(self) -> AttentionTargetModule: ...

    @classmethod
    def options_for(cls, part: Part) -> Mapping[str, Any]:
        """Heads, widths, skip and closing norm of the attention that the block replaces."""
        if part.entering.ndim < 3 or part.entering.shape != part.leaving.shape:
            shapes = f"{list(part.leaving.shape)} of {list(part.entering.shape)}"
            raise SpecMismatch(f"it makes {shapes}, not [examples, positions, channels] of the same")
        source = attention_of(part)
        if source is None:
            return {"channels": part.entering.shape[-1], "skip": "none"}
        return source[0].options.model_dump()

    def warm_start(self, part: Part) -> Params | None:
        """The layers of the attention that the block replaces, as far as it has the same ones."""
        source = attention_of(part)
        if source is None:
            return None
        attention, params = source
        module = self.module()
        initial = {name: tensor[None] for name, tensor in module.state_dict().items()}
        taken_over = {
            name: tensor for name, tensor in params.items() if name in initial and initial[name].shape == tensor.shape
        }
        started = {
            name: (taken_over | self.from_heads(params, attention)).get(name, initial[name]) for name in self.spec.names
        }
        return {name: tensor.to(part.entering) for name, tensor in started.items()}

    def from_heads(self, params: Params, heads: Heads) -> Params:
        """Layers that are not the same, made of those of attention head by head; none unless overridden.

        Args:
            params: Tensors of the attention, `[1, ...]` each.
            heads: Its adapter.
        """
        return {}


class AttentionTargetModule(nn.Module, SkipModule):
    """`[batch, ..., positions, channels]` → the same shape; what mixes positions is `mix`."""

    def __init__(self, options: AttentionTargetOptions) -> None:
        super().__init__()
        self.shape, self.adds = (options.heads, options.width), options.skip
        self.out = nn.Linear(options.heads * options.width, options.channels, options.bias)
        self.closing = nn.LayerNorm(options.channels, options.closing) if options.closing else nn.Identity()

    @abstractmethod
    def mix(self, x: Tensor) -> Tensor:
        """`[..., positions, channels]` → what each head gives at each position, `[..., heads, positions, width]`."""

    def forward(self, x: Tensor) -> Tensor:
        normalised: Tensor = self.closing(self.branch(x) + self.skip(x))
        return normalised

    def branch(self, x: Tensor) -> Tensor:
        branch: Tensor = self.out(self.mix(x).transpose(-3, -2).flatten(-2))
        return branch

    def skip(self, x: Tensor) -> Tensor:
        return x if self.adds == "identity" else x.new_zeros(())


def by_head(values: Tensor, heads: int) -> Tensor:
    """`[..., positions, heads × width]` → `[..., heads, positions, width]`."""
    return values.reshape(*values.shape[:-1], heads, -1).transpose(-3, -2)


def low_rank(weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The nearest product of two thinner matrices (Eckart and Young 1936), both of the same norm.

    Args:
        weight: `[out, in]`.
        rank: Values between the two.

    Returns:
        `[out, rank]` and `[rank, in]`.
    """
    left, values, right = torch.linalg.svd(weight, full_matrices=False)
    root = values[:rank].sqrt()
    return left[:, :rank] * root, root[:, None] * right[:rank]
