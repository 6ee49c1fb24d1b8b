"""Layers that torch lacks and the fast layouts know."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention


class SpatialAttention(nn.Module):
    """Single-head softmax attention in which every position of an image looks at all positions."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Values averaged over positions with weights softmax(q·k / √width).

        Args:
            q: Queries, `[batch, width, h, w]`.
            k: Keys, of the same shape.
            v: Values, `[batch, width_v, h, w]`.

        Returns:
            `[batch, width_v, h, w]`.
        """
        q, k, values = (x.flatten(-2).transpose(-1, -2) for x in (q, k, v))
        mixed: Tensor = scaled_dot_product_attention(q, k, values)
        return mixed.transpose(-1, -2).reshape(v.shape)
