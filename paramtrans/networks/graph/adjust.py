"""Groups of units of a smaller network that translators go on from, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from paramtrans.api.units import UnitPiece
from paramtrans.errors import SpecMismatch
from paramtrans.networks.graph.groups import NamedGroup
from paramtrans.networks.graph.pieces import Pieces
from paramtrans.utils import seeds

AT_ONCE = 64
"""Inputs that are run together, where a translator has no number `batch` among its options."""

Adjust = Callable[[UnitPiece], Mapping[str, Tensor]]
"""Other values for tensors of a piece."""


def adjust_groups(
    pieces: Pieces, groups: list[NamedGroup], name: str, adjust: Adjust, seed: int, advance: Callable[[str], None]
) -> dict[str, str]:
    """Let a translator go on from each group, in the order in which they are read.

    A group whose piece of the network cannot be separated is left as it is.

    Args:
        pieces: Of the smaller network, which is written to.
        groups: Those that became smaller.
        name: Of the translator.
        adjust: What it does: other values for tensors of a piece.
        seed: For whatever is drawn.
        advance: Is called with the path of each group.

    Returns:
        Groups that were left as they are, as they are called, with the reason of each.

    Raises:
        SpecMismatch: no group has a piece that can be separated, or the translator wrote tensors of another shape, or
            values that are not finite.
    """
    reasons: dict[str, str] = {}
    for number, group in enumerate(groups):
        try:
            piece = pieces.piece(group, seeds.derive(seed, "units", number))
        except SpecMismatch as error:
            reasons[group.title] = str(error)
        else:
            with torch.enable_grad():
                values = adjust(piece)
            write_piece(pieces.tensors(), piece, values)
        advance(group.path)
    if len(reasons) == len(groups):
        said = "; ".join(f"{title}: {reason}" for title, reason in list(reasons.items())[:3])
        raise SpecMismatch(f"{name}: can go on from none of these units; leave it out ({said})")
    return reasons


@torch.no_grad()
def write_piece(tensors: Mapping[str, Tensor], piece: UnitPiece, values: Mapping[str, Tensor]) -> None:
    """Write what a translator made of a piece of a network.

    Args:
        tensors: By name, among others those of the piece; they are written to.
        piece: What the translator was given.
        values: What it gave.

    Raises:
        SpecMismatch: it gave tensors of another shape, or values that are not finite.
    """
    for name, value in values.items():
        if name not in piece.params or value.shape != piece.params[name].shape:
            raise SpecMismatch(f"{piece.path}: {name} {list(value.shape)} is no tensor of this piece of the network")
        if not bool(value.isfinite().all()):
            raise SpecMismatch(f"{piece.path}: the translator wrote values that are not finite; look at the inputs")
        tensors[name].data.copy_(value)
