"""Groups of units of a smaller network that translators go on from, one after the other."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from paramtrans.api.units import UnitPiece
from paramtrans.errors import SpecMismatch
from paramtrans.networks.graph.groups import NamedGroup
from paramtrans.networks.graph.pieces import Pieces
from paramtrans.utils import seeds

log = logging.getLogger(__name__)
AT_ONCE = 64
"""Inputs that are run together, where a translator has no number `batch` among its options."""

Adjust = Callable[[UnitPiece], Mapping[str, Tensor]]
"""Other values for tensors of a piece."""


def adjust_groups(
    pieces: Pieces, groups: list[NamedGroup], adjust: Adjust, seed: int, advance: Callable[[str], None]
) -> None:
    """Let a translator go on from each group, in the order in which they are read; the smaller network is written to.

    A group whose piece of the network cannot be told apart is left as it is, with a warning.
    """
    for number, group in enumerate(groups):
        try:
            piece = pieces.piece(group, seeds.derive(seed, "units", number))
        except SpecMismatch as error:
            log.warning("%s stays as it was written: %s", group.path or "the network", error)
        else:
            with torch.enable_grad():
                found = adjust(piece)
            _write(pieces, piece, found)
        advance(group.path)


@torch.no_grad()
def _write(pieces: Pieces, piece: UnitPiece, found: Mapping[str, Tensor]) -> None:
    tensors = pieces.tensors()
    for name, value in found.items():
        if name not in piece.params or value.shape != piece.params[name].shape:
            raise SpecMismatch(f"{piece.path}: {name} {list(value.shape)} is no tensor of this piece of the network")
        if not bool(value.isfinite().all()):
            raise SpecMismatch(f"{piece.path}: the translator wrote values that are not finite; look at the inputs")
        tensors[name].data.copy_(value)
