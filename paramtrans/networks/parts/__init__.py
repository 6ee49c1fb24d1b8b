"""Parts of a network given to other architectures: found, judged, replaced and fitted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paramtrans.utils.lazy import face

if TYPE_CHECKING:
    from paramtrans.networks.parts.replacing import ReplacedPart as ReplacedPart
else:
    __getattr__, __dir__, __all__ = face(__name__, {"replacing": ["ReplacedPart"]})
