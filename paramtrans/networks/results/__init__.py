"""What came of a translation: what was lost, pages and cards, and files for other programs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paramtrans.utils.lazy import face

if TYPE_CHECKING:
    from paramtrans.networks.results.exporting import save_exported as save_exported, save_onnx as save_onnx
    from paramtrans.networks.results.gguf import save_gguf as save_gguf
    from paramtrans.networks.results.measuring import measure_losses as measure_losses
    from paramtrans.networks.results.stock import save_stock as save_stock
else:
    __getattr__, __dir__, __all__ = face(
        __name__,
        {
            "exporting": ["save_onnx", "save_exported"],
            "gguf": ["save_gguf"],
            "measuring": ["measure_losses"],
            "stock": ["save_stock"],
        },
    )
