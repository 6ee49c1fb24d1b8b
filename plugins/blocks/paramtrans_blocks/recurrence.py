"""Sums over all positions before, with decay: what linear attention and state-space layers compute."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

CHUNK = 64
"""Positions that are computed together."""


def decayed_sums(query: Tensor, key: Tensor, value: Tensor, decay: Tensor | None = None, chunk: int = CHUNK) -> Tensor:
    """y_t = q_t S_t with S_t = exp(a_t) S_{t-1} + k_tᵀ v_t, at a cost that grows with the number of positions.

    Inside a chunk all pairs of positions are weighed; chunks hand their sums on (state-space duality: Dao and Gu 2024,
    arXiv 2405.21060, section 6).

    Args:
        query: `[..., positions, features]`.
        key: The same.
        value: `[..., positions, width]`.
        decay: a, zero or less, `[..., positions]`; None: zero.
        chunk: Positions that are computed together.

    Returns:
        `[..., positions, width]`.
    """
    positions = query.shape[-2]
    missing = -positions % chunk
    query, key, value = (pad(x, (0, 0, 0, missing)).unflatten(-2, (-1, chunk)) for x in (query, key, value))
    decay = key.new_zeros(key.shape[:-1]) if decay is None else pad(decay, (0, missing)).unflatten(-1, (-1, chunk))
    until = decay.cumsum(-1)
    lower = torch.ones(chunk, chunk, dtype=torch.bool, device=query.device).tril()
    between = (until[..., :, None] - until[..., None, :]).masked_fill(~lower, -torch.inf)
    inside = (query @ key.mT * between.exp()) @ value
    sums = (key * (until[..., -1:] - until).exp()[..., None]).mT @ value
    before = _before(sums, until[..., -1].exp())
    return (inside + query * until.exp()[..., None] @ before).flatten(-3, -2)[..., :positions, :]


def _before(sums: Tensor, decays: Tensor) -> Tensor:
    """What all earlier chunks hand to each: `[..., chunks, features, width]`, with the decay over each chunk."""
    state, states = torch.zeros_like(sums[..., 0, :, :]), []
    for number in range(sums.shape[-3]):
        states.append(state)
        state = decays[..., number, None, None] * state + sums[..., number, :, :]
    return torch.stack(states, dim=-3)
