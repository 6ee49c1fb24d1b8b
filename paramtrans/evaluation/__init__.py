"""What a block is worth: accuracy, costs, comparison with other methods, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paramtrans.utils.lazy import face

if TYPE_CHECKING:
    from paramtrans.evaluation.accuracy import accuracies as accuracies
    from paramtrans.evaluation.comparison import Comparison as Comparison
    from paramtrans.evaluation.costs import BlockCost as BlockCost, block_costs as block_costs
    from paramtrans.evaluation.diagnosis import Diagnosis as Diagnosis
else:
    __getattr__, __dir__, __all__ = face(
        __name__,
        {
            "accuracy": ["accuracies"],
            "comparison": ["Comparison"],
            "costs": ["BlockCost", "block_costs"],
            "diagnosis": ["Diagnosis"],
        },
    )
