"""What each ATen operation does to labels, by its name. Operations that are not named pin all that they are given."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paramtrans.utils.lazy import face

if TYPE_CHECKING:
    from paramtrans.networks.graph.rules.table import RULES as RULES
else:
    __getattr__, __dir__, __all__ = face(__name__, {"table": ["RULES"]})
