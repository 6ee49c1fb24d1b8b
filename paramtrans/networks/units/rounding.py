"""Widths that hardware likes: numbers of units rounded to multiples."""

from __future__ import annotations

from dataclasses import dataclass

from paramtrans.errors import SpecMismatch

MULTIPLE = 8
"""Sizes that tensor cores work in whole tiles at, in half precision."""
WIDE = 64
"""From this width on, numbers of units are rounded to multiples of `MULTIPLE` unless another is asked for: fewer units
stay as many as were asked for, where a multiple would be far from that."""


@dataclass(frozen=True)
class Rounding:
    """How numbers of units are rounded. Units of several values (heads, groups of channels) are counted whole."""

    multiple_of: int | None = None
    """What widths become a multiple of; None: of 8 where a width is at least 64, and of nothing below."""
    least: int = 1
    """Fewest units."""

    def __post_init__(self) -> None:
        for name, value in (("multiple_of", self.multiple_of), ("least", self.least)):
            if value is not None and (type(value) is not int or value < 1):
                raise SpecMismatch(f"{name}: {value!r} is no number of units; give 1 or more")

    def __call__(self, size: int, wanted: float, unrounded: bool = False) -> int:
        """The nearest number of units to a wanted one; all units where there is no multiple below.

        Args:
            size: How many units there are.
            wanted: How many should stay; from `size` on, all do.
            unrounded: Units are not rounded to multiples.
        """
        if wanted >= size:
            return size
        step = 1 if unrounded else self.step(size, wanted)
        count = round(wanted / step) * step if step > 1 else round(wanted)
        return min(size, max(count, step, self.least, 1))

    def step(self, size: int, wanted: float) -> int:
        """What a width of `size` units is rounded to multiples of, where `wanted` should stay."""
        if self.multiple_of is not None:
            return self.multiple_of
        return MULTIPLE if size >= WIDE and wanted >= MULTIPLE else 1
