"""PyTorch's attention module computed from its layers, with any number of heads.

`nn.MultiheadAttention` insists on as many heads as fill its embedding, and computes them in one function, which hides
its layers from whatever watches a pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional


class PlainAttention(nn.MultiheadAttention):
    """An `nn.MultiheadAttention` whose heads need not fill the embedding; its tensors and arguments are the same.

    Modules are not made of this class, they become it: `with_plain_attention`, `keep_plain_attention`.
    """

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """As of `nn.MultiheadAttention`; a mask for each head is `[examples * heads, queries, keys]`."""
        if is_causal and attn_mask is None:
            raise RuntimeError("need attn_mask if specifying the is_causal hint")
        batched, swapped = query.dim() == 3, query.dim() == 3 and not self.batch_first
        inputs = [query, key, value]
        inputs = [tensor.transpose(0, 1) if swapped else tensor for tensor in inputs]
        inputs = [tensor if batched else tensor[None] for tensor in inputs]
        queries, keys, values = (self._heads(tensor) for tensor in self._projected(*inputs))
        mask = self._mask(queries, keys, attn_mask, key_padding_mask)
        if need_weights:
            scores = queries @ keys.transpose(-2, -1) * self.head_dim**-0.5
            weights = (scores if mask is None else scores + mask).softmax(-1)
            mixed = functional.dropout(weights, self.dropout, self.training) @ values
        else:
            dropout = self.dropout if self.training else 0.0
            mixed = functional.scaled_dot_product_attention(queries, keys, values, mask, dropout)
        output = self.out_proj(mixed.transpose(1, 2).flatten(2))
        output = output.transpose(0, 1) if swapped else output if batched else output[0]
        if not need_weights:
            return output, None
        weights = weights.mean(1) if average_attn_weights else weights
        return output, weights if batched else weights[0]

    def _projected(self, query: Tensor, key: Tensor, value: Tensor) -> list[Tensor]:
        """Queries, keys and values, each `[examples, tokens, heads * head_dim]`."""
        if self.in_proj_weight is not None:
            weights = self.in_proj_weight.chunk(3)
        else:
            weights = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        biases = (None, None, None) if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
        inputs = (query, key, value)
        if self.in_proj_weight is not None and query is key is value:
            return list(functional.linear(query, self.in_proj_weight, self.in_proj_bias).chunk(3, dim=-1))
        return [functional.linear(*parts) for parts in zip(inputs, weights, biases, strict=True)]

    def _heads(self, tensor: Tensor) -> Tensor:
        """`[examples, heads, tokens, head_dim]`."""
        heads: Tensor = tensor.unflatten(-1, (self.num_heads, self.head_dim))
        return heads.transpose(1, 2)

    def _mask(self, queries: Tensor, keys: Tensor, attention: Tensor | None, padding: Tensor | None) -> Tensor | None:
        """What is added to the scores, `[examples, heads, queries, keys]` or broadcast to it."""
        if attention is not None:
            attention = _added(attention, queries)
            if attention.dim() == 3:
                attention = attention.unflatten(0, (len(queries), self.num_heads))
        if padding is None:
            return attention
        padding = _added(padding, queries).view(-1, 1, 1, keys.shape[-2])
        return padding if attention is None else attention + padding


def _added(mask: Tensor, like: Tensor) -> Tensor:
    """A mask as numbers that are added: what is left out is minus infinity."""
    if mask.dtype != torch.bool:
        return mask.to(like)
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill_(mask, float("-inf"))


def _can_be_plain(module: nn.Module) -> TypeGuard[nn.MultiheadAttention]:
    """Whether it is PyTorch's own class, without tokens that it adds to keys and values."""
    return (
        type(module) is nn.MultiheadAttention
        and module.bias_k is None
        and module.bias_v is None
        and not module.add_zero_attn
    )


@contextmanager
def with_plain_attention(*networks: nn.Module) -> Iterator[None]:
    """Within it the layers of attention modules can be watched, in these networks."""
    modules = [module for network in networks for module in network.modules() if _can_be_plain(module)]
    for module in modules:
        module.__class__ = PlainAttention
    try:
        yield
    finally:
        for module in modules:
            module.__class__ = nn.MultiheadAttention


def keep_plain_attention(network: nn.Module) -> None:
    """Attention modules whose heads no longer fill the embedding, or that write another width, become plain for good.

    Args:
        network: Is changed. Its encoders no longer take PyTorch's fast path, which knows nothing of these.
    """
    changed = []
    for module in network.modules():
        if not _can_be_plain(module):
            continue
        heads = module.out_proj.weight.shape[1] // module.head_dim
        if heads * module.head_dim != module.embed_dim or len(module.out_proj.weight) != module.embed_dim:
            module.__class__, module.num_heads = PlainAttention, heads
            changed.append(module)
            module._qkv_same_embed_dim = False  # what PyTorch's encoder layers ask before they take the fast path
    for module in network.modules():
        if isinstance(module, nn.TransformerEncoder) and any(inner in changed for inner in module.modules()):
            module.use_nested_tensor = False
