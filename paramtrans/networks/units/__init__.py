"""Groups of units of any network: how many stay, which, and the smaller network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paramtrans.utils.lazy import face

if TYPE_CHECKING:
    from paramtrans.networks.units.narrowed import NarrowedGroup as NarrowedGroup
    from paramtrans.networks.units.widths import GroupSizes as GroupSizes
else:
    __getattr__, __dir__, __all__ = face(__name__, {"narrowed": ["NarrowedGroup"], "widths": ["GroupSizes"]})
