"""A linear layer solved for by least squares: the last one of a block that starts from another's layers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from paramtrans.ops.halves import Halves
from paramtrans.ops.views import plain, whole


@torch.no_grad()
def solved_layer(read: Tensor, wanted: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """The layer that makes what is wanted of what it reads, by ridge regression pulled towards a start.

    Args:
        read: What enters it, `[examples, ..., in]`.
        wanted: What should leave it, `[examples, ..., out]`.
        weight: The start, `[out, in]`.
        bias: Of the start, `[out]`; None: the layer has none.

    Returns:
        Weight and bias. The ridge is as strong as half of the examples says for the other.
    """
    layer, halves = nn.Linear(read.shape[-1], wanted.shape[-1], device="meta"), Halves(len(read))
    halves.add(layer, read[None], wanted[None])
    view = plain if bias is None else whole
    start = (weight if bias is None else torch.cat([weight, bias[:, None]], dim=1)).mT[None].double()
    solution = view(halves.total()).ridge(start, halves.ridge(view, start))[0].mT.to(read)
    return (solution, None) if bias is None else (solution[:, :-1], solution[:, -1])
