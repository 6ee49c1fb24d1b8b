"""Training a translator, in one process or several."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paramtrans.utils.lazy import face

if TYPE_CHECKING:
    from paramtrans.training.trainer import Trainer as Trainer
else:
    __getattr__, __dir__, __all__ = face(
        __name__,
        {
            "trainer": ["Trainer"],
        },
    )
