"""The figures of a translated network: its blocks in order, and the curve of what it costs to make it smaller."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from paramtrans.report.figures import BLUE, GREY, INK, ORANGE, finite, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@styled
def blocks(names: Sequence[str], shares: Sequence[float], errors: Sequence[float | None]) -> Figure:
    """Share of the parameters that each block keeps, and its relative error, from top to bottom as features go."""
    from matplotlib.figure import Figure

    rows = range(len(names))
    figure = Figure(figsize=(7.2, 0.9 + 0.26 * max(1, len(names))), layout="constrained")
    figure.get_layout_engine().set(wspace=0.08)  # type: ignore[union-attr, call-arg]
    left, right = figure.subplots(1, 2, sharey=True)
    left.barh(rows, [100 * share for share in shares], color=BLUE, height=0.6)
    left.set_xlim(0, 100)
    left.set_xlabel("parameters kept, %")
    right.barh(rows, [error if finite([error]) else 0.0 for error in errors], color=ORANGE, height=0.6)
    right.set_xlabel("relative error")
    left.set_yticks(rows, [_printable(name) for name in names])
    left.set_ylim(len(names) - 0.4, -0.6)
    for axes in (left, right):
        axes.grid(axis="x")
        axes.tick_params(axis="y", length=0)
    return figure


@styled
def curve(points: Sequence[Mapping[str, float]], knee: int | None, loss: str) -> Figure:
    """Loss against what stays of size and latency, a point for each width; the knee is marked.

    Each point has `size` and perhaps `latency`, in percent of the original, and `loss`, whose name is given.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 3.4), layout="constrained")
    panels = figure.subplots(1, 2 if all("latency" in point for point in points) else 1, sharey=True, squeeze=False)[0]
    for axes, key, colour in zip(panels, ("size", "latency"), (BLUE, GREY), strict=False):
        at = [point[key] for point in points]
        line = "o-" if key == "size" else "o"  # times are noisy, and in no order
        axes.plot(at, [point["loss"] for point in points], line, color=colour)
        if knee is not None:
            axes.plot([at[knee]], [points[knee]["loss"]], "o", color=ORANGE, markersize=10)
            place = (at[knee], points[knee]["loss"])
            axes.annotate("knee", place, (8, 8), textcoords="offset points", color=INK)
        axes.set_xlabel(f"{'parameters' if key == 'size' else key}, % of the original")
        axes.grid()
    panels[0].set_ylabel(loss)
    return figure


def _printable(name: str) -> str:
    shown = "".join(c if c.isprintable() else " " for c in name)
    return shown if len(shown) <= 48 else "…" + shown[-47:]
