"""Many models at once on a GPU, by Triton kernels that work on one model and a tile of positions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paramtrans.utils.lazy import face

if TYPE_CHECKING:
    from paramtrans.backends.gpu.stacked import GpuStack as GpuStack, supports as supports
else:
    __getattr__, __dir__, __all__ = face(__name__, {"stacked": ["GpuStack", "supports"]})
