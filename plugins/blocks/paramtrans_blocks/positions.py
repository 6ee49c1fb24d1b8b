"""What attention does with positions: rotates queries and keys by them, and looks at those before alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention


def nothing_before(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """The `Keep` of a pass that has all positions."""
    return first, second


def by_head(values: Tensor, heads: int) -> Tensor:
    """`[..., positions, heads × width]` → `[..., heads, positions, width]`."""
    return values.reshape(*values.shape[:-1], heads, -1).transpose(-3, -2)


def for_heads(values: Tensor, heads: int) -> Tensor:
    """Fewer heads, each repeated beside itself, as `heads`: `[..., fewer, positions, width]` → `[..., heads, …]`."""
    times = heads // values.shape[-3]
    return values if times == 1 else values.repeat_interleave(times, dim=-3)


def rotated(values: Tensor, frequencies: Sequence[float], neighbours: bool, first: int = 0) -> Tensor:
    """Rotary positions (Su et al. 2021, RoFormer, arXiv 2104.09864, equation 34).

    Args:
        values: Queries or keys, `[..., positions, width]`.
        frequencies: Radians by which each pair turns from a position to the next. Values behind the pairs stay.
        neighbours: Whether the values of a pair stand beside each other; else half of the pairs' values apart.
        first: Number of the first position.
    """
    if not frequencies:
        return values
    positions = torch.arange(first, first + values.shape[-2], device=values.device, dtype=torch.float32)
    angles = positions[:, None] * torch.tensor(frequencies, device=values.device, dtype=torch.float32)
    cosine, sine = angles.cos().to(values), angles.sin().to(values)
    turning, staying = values.split([2 * len(frequencies), values.shape[-1] - 2 * len(frequencies)], dim=-1)
    real, imaginary = pairs(turning, neighbours)
    return torch.cat(
        [
            from_pairs(real * cosine - imaginary * sine, imaginary * cosine + real * sine, neighbours),
            staying,
        ],
        dim=-1,
    )


def pairs(values: Tensor, neighbours: bool) -> tuple[Tensor, Tensor]:
    """Both values of each pair: `[..., 2 × pairs]` → `[..., pairs]` twice."""
    if neighbours:
        return values[..., ::2], values[..., 1::2]
    first, second = values.chunk(2, dim=-1)
    return first, second


def from_pairs(first: Tensor, second: Tensor, neighbours: bool) -> Tensor:
    """`pairs`, undone."""
    return torch.stack([first, second], dim=-1).flatten(-2) if neighbours else torch.cat([first, second], dim=-1)


def reachable(queries: int, keys: int, device: torch.device) -> Tensor:
    """Which keys each query may look at: those up to its position, `[queries, keys]`; both end at the same position."""
    return torch.ones(queries, keys, dtype=torch.bool, device=device).tril(keys - queries)


def softmax_attention(query: Tensor, key: Tensor, value: Tensor, causal: bool) -> Tensor:
    """softmax(q·k / √width) over all positions, or over those up to the query's.

    Args:
        query: `[..., heads, positions, width]`, of the last positions.
        key: `[..., fewer heads, all positions, width]`.
        value: The same.
        causal: Whether later positions are out of sight.
    """
    key, value = for_heads(key, query.shape[-3]), for_heads(value, query.shape[-3])
    if causal and query.shape[-2] != key.shape[-2]:
        seen = reachable(query.shape[-2], key.shape[-2], query.device)
        return scaled_dot_product_attention(query, key, value, attn_mask=seen)
    return scaled_dot_product_attention(query, key, value, is_causal=causal)
