"""Blocks of a network: found by the adapters that know them, chosen, and what translates each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paramtrans.utils.lazy import face

if TYPE_CHECKING:
    from paramtrans.networks.blocks.finding import NetworkBlock as NetworkBlock, find_blocks as find_blocks
else:
    __getattr__, __dir__, __all__ = face(__name__, {"finding": ["NetworkBlock", "find_blocks"]})
