"""Many models at once: vmap, the same on the CPU in vector lanes, and on a GPU in Triton kernels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paramtrans.utils.lazy import face

if TYPE_CHECKING:
    from paramtrans.backends.host_runner import HostRunner as HostRunner
    from paramtrans.backends.vmap import Vmap as Vmap, block_stacked as block_stacked, stacked as stacked
else:
    __getattr__, __dir__, __all__ = face(
        __name__,
        {
            "host_runner": ["HostRunner"],
            "vmap": ["Vmap", "block_stacked", "stacked"],
        },
    )
