"""Units of any network, found in its captured graph: what they tie together, left out, proven, made up for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paramtrans.utils.lazy import face

if TYPE_CHECKING:
    from paramtrans.networks.graph.groups import Analysis as Analysis, NamedGroup as NamedGroup, analyse as analyse
    from paramtrans.networks.graph.units import UnitGroup as UnitGroup
else:
    __getattr__, __dir__, __all__ = face(
        __name__, {"groups": ["Analysis", "NamedGroup", "analyse"], "units": ["UnitGroup"]}
    )
