"""Tables of numbers on standard output."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import RenderableType

WIDEST = 1000
NARROW = 40
"""Columns of a terminal in which cells would be cut to nothing; lines are folded there instead."""


def show(table: RenderableType) -> None:
    """Print a table, or several; into a pipe or a file as wide as it wants to be, so that no number is broken."""
    from rich.console import Console
    from rich.measure import Measurement

    console = Console()
    if not console.is_terminal or console.width < NARROW:
        natural_width = Measurement.get(console, console.options.update(max_width=WIDEST), table).maximum
        console.width = max(console.width, natural_width)
    console.print(table)
