"""Mathematics on parameters and features."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paramtrans.utils.lazy import face

if TYPE_CHECKING:
    from paramtrans.ops.distances import relative_error as relative_error
    from paramtrans.ops.statistics import Summary as Summary, summarise as summarise
    from paramtrans.ops.symmetry import (
        balance as balance,
        permute as permute,
        random_orbit as random_orbit,
        rescale as rescale,
    )
    from paramtrans.ops.tokens import TokenLayout as TokenLayout
else:
    __getattr__, __dir__, __all__ = face(
        __name__,
        {
            "distances": ["relative_error"],
            "statistics": ["Summary", "summarise"],
            "symmetry": ["balance", "permute", "random_orbit", "rescale"],
            "tokens": ["TokenLayout"],
        },
    )
