"""Of several values for each unit, the combinations that the layer which reads them makes most of."""

from __future__ import annotations

import torch
from torch import Tensor


def main_directions(weight: Tensor, units: int, rank: int) -> Tensor:
    """The first eigenvectors of W Wᵀ of each unit.

    Args:
        weight: The reader's weights W, `[values, outputs]`; values run unit by unit, as many for each.
        units: How many units there are.
        rank: How many combinations of each unit's values there are to be, at most as many as it has values.

    Returns:
        `[units, values of a unit, rank]`, in double precision.
    """
    per_unit = weight.double().unflatten(0, (units, -1))
    basis: Tensor = torch.linalg.eigh(per_unit @ per_unit.mT).eigenvectors[..., -rank:]
    return basis
