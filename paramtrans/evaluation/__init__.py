"""What a block is worth: metrics, costs, comparison with other methods, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paramtrans.utils.lazy import face

if TYPE_CHECKING:
    from paramtrans.evaluation.comparison import Comparison as Comparison
    from paramtrans.evaluation.costs import BlockCost as BlockCost, block_costs as block_costs
    from paramtrans.evaluation.diagnosis import Diagnosis as Diagnosis
    from paramtrans.evaluation.metrics import measured as measured
else:
    __getattr__, __dir__, __all__ = face(
        __name__,
        {
            "comparison": ["Comparison"],
            "costs": ["BlockCost", "block_costs"],
            "diagnosis": ["Diagnosis"],
            "metrics": ["measured"],
        },
    )
