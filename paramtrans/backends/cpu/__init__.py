"""Many models at once on the CPU: 16 side by side, one in each lane of a vector register."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paramtrans.utils import compiled
from paramtrans.utils.lazy import face

compiled.find_room()

if TYPE_CHECKING:
    from paramtrans.backends.cpu.stacked import CpuStack as CpuStack, supports as supports
else:
    __getattr__, __dir__, __all__ = face(__name__, {"stacked": ["CpuStack", "supports"]})
