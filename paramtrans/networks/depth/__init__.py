"""Whole blocks of a network left out where that costs least: which could go, which do, and what follows from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paramtrans.utils.lazy import face

if TYPE_CHECKING:
    from paramtrans.networks.depth.left_out import LeftOut as LeftOut
else:
    __getattr__, __dir__, __all__ = face(__name__, {"left_out": ["LeftOut"]})
