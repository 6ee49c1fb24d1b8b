"""How the equations of a layer are seen: with a constant, without, or with all means taken out."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from paramtrans.ops.few_rows import FewRows
from paramtrans.ops.least_squares import GramMatrices

Moments: TypeAlias = GramMatrices | FewRows
"""The equations of a layer, summed or row by row: whatever takes less."""
View: TypeAlias = Callable[[Moments], Moments]


def whole(moments: Moments) -> Moments:
    """With the constant, whose weights are the bias: for a layer that has one."""
    return moments.whole()


def plain(moments: Moments) -> Moments:
    """Without the constant: for a layer that has no bias."""
    return moments.plain()


def centred(moments: Moments) -> Moments:
    """With all means taken out, and so without the constant: for a layer that has a bias."""
    return moments.centred()
