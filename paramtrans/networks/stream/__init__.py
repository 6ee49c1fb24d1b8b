"""The residual stream of any network, rotated into its principal axes: what touches it, norms folded, the new basis."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paramtrans.utils.lazy import face

if TYPE_CHECKING:
    from paramtrans.networks.stream.rotation import Rotated as Rotated, rotated as rotated
else:
    __getattr__, __dir__, __all__ = face(__name__, {"rotation": ["Rotated", "rotated"]})
