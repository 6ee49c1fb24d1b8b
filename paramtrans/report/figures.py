"""The report's figures: matplotlib without pyplot, and SVG for inside a page whose colours it takes on."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any, ParamSpec
from xml.etree import ElementTree

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import Tensor

    from paramtrans.api.records import Evaluation, MeasuredBy

P = ParamSpec("P")

METHODS = {
    "source": "source network",
    "trained_target": "trained target (step 2)",
    "translated": "translated",
    "zero_block": "zero block",
    "random_init": "random initialisation",
    "random_replacement": "random replacement",
    "greedy_replacement": "greedy replacement",
}
"""What people read for each method, in the order of tables and figures."""

MAPS = {"input": "input", "former": "after former", **METHODS}
MAPS |= {"source": "source block", "trained_target": "trained target"}
"""Titles of the columns of feature maps, in their order."""

INK, MUTED, GRID, CARD = "#1f2430", "#5f6878", "#e3e6eb", "#ffffff"
BLUE, ORANGE, GREY = "#2f7de1", "#d9730d", "#858d9b"
COLOURS = {"translated": BLUE, "source": ORANGE, "trained_target": ORANGE}
"""Mid-tones, so that they are seen on a light page and on a dark one; rivals are grey."""

PAGE_COLOURS = {INK: "--ink", MUTED: "--muted", GRID: "--line", CARD: "--card"}
"""Colours that become variables of the page, so that a dark page gets dark figures."""

STYLE: dict[str, Any] = {
    "font.size": 10,
    "font.sans-serif": ["DejaVu Sans"],
    "figure.facecolor": CARD,
    "axes.facecolor": "none",
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "svg.fonttype": "none",
}

MOST_DOTS, MOST_IMAGES, BINS = 300, 8, 20


def styled(function: Callable[P, Any]) -> Callable[P, Any]:
    """Run a function in the report's style, whatever the user's own; theirs is back afterwards."""

    @functools.wraps(function)
    def styled(*args: P.args, **kwargs: P.kwargs) -> Any:
        import matplotlib.style

        with matplotlib.style.context(["default", STYLE]):
            return function(*args, **kwargs)

    return styled


def ordered(names: Iterable[str]) -> list[str]:
    """Methods in the order of tables; unknown ones behind, by name."""
    places = list(METHODS)
    return sorted(names, key=lambda name: (places.index(name) if name in METHODS else len(places), name))


def label(name: str) -> str:
    """What people read for a method: its name from `METHODS`, otherwise made printable and short."""
    text = METHODS.get(name) or "".join(c if c.isprintable() else " " for c in name.replace("_", " "))
    return text if len(text) <= 40 else text[:39] + "…"


def finite(values: Iterable[float | None]) -> list[float]:
    """The values that are numbers."""
    return [value for value in values if value is not None and math.isfinite(value)]


@styled
def means(result: Evaluation) -> Figure:
    """Mean of every method by the metric with its 95% interval, hosts as faint dots behind."""
    from matplotlib.figure import Figure

    methods, by = result.methods, result.metric
    means = {name: mean for name in ordered(methods) for mean in finite([methods[name].mean])}
    names = list(means)
    figure = Figure(figsize=(7.2, 0.8 + 0.46 * max(1, len(names))), layout="constrained")
    axes = figure.subplots()
    for row, name in enumerate(names):
        hosts, colour = result.hosts.accuracies.get(name, []), COLOURS.get(name, GREY)
        method_line(axes, row, means[name], methods[name].ci95, hosts, colour, name == "translated", by.digits)
    axes.set_yticks(range(len(names)), [label(name) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlabel(by.heading)
    axes.grid(axis="x")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    for name, tick in zip(names, axes.get_yticklabels(), strict=True):
        tick.set_fontweight("bold" if name == "translated" else "normal")
    return figure


def method_line(
    axes: Axes,
    row: int,
    mean: float,
    ci95: Iterable[float | None],
    hosts: Iterable[float | None],
    colour: str,
    bold: bool,
    digits: int = 1,
) -> None:
    dots = _thinned(finite(hosts))
    # Golden-ratio steps spread the dots evenly, and alike each time.
    heights = [row + 0.5 * (i * 0.618034 % 1 - 0.5) for i in range(len(dots))]
    axes.scatter(dots, heights, s=12, color=colour, alpha=0.3, linewidths=0)
    if len(interval := finite(ci95)) == 2:
        axes.plot(interval, [row, row], color=colour, linewidth=4, solid_capstyle="round")
    axes.plot([mean], [row], "o", color=colour, markersize=7, markeredgecolor=CARD, markeredgewidth=1.2)
    weight = "bold" if bold else "normal"
    where = axes.get_yaxis_transform()
    axes.text(1.07, row, f"{mean:.{digits}f}", transform=where, va="center", ha="right", fontweight=weight)


def _thinned(values: list[float]) -> list[float]:
    """At most `MOST_DOTS` of the values, by rank and the extremes among them, so that a page stays small."""
    if len(values) <= MOST_DOTS:
        return values
    values = sorted(values)
    return [values[round(i * (len(values) - 1) / (MOST_DOTS - 1))] for i in range(MOST_DOTS)]


@styled
def training(history: Sequence[Mapping[str, Any]], by: MeasuredBy, best_epoch: int | None = None) -> Figure:
    """Loss, and below it the metric on the selection hosts where there is any; the chosen epoch is marked."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    curves = {"loss": ("loss", GREY), "select": (f"selection\n{by.heading}", BLUE)}
    points = {key: [(e["epoch"], e[key]) for e in history if finite([e.get(key)])] for key in curves}
    shown = [key for key in curves if points[key]] or ["loss"]
    figure = Figure(figsize=(7.2, 0.6 + 1.9 * len(shown)), layout="constrained")
    panels = figure.subplots(len(shown), 1, sharex=True, squeeze=False)[:, 0]
    for axes, key in zip(panels, shown, strict=True):
        name, colour = curves[key]
        epochs, values = [epoch for epoch, _ in points[key]], [value for _, value in points[key]]
        axes.plot(epochs, values, color=colour, marker="o" if len(values) <= 60 else "", markersize=4)
        axes.set_ylabel(name)
        axes.grid()
        if key == "loss" and values and min(values) > 0 and max(values) > 20 * min(values):
            log_scale(axes)
        if best_epoch:
            axes.axvline(best_epoch, color=ORANGE, linewidth=1.4, linestyle="--")
    if best_epoch:
        _mark(panels[0], best_epoch, max((e["epoch"] for e in history), default=0))
    panels[-1].set_xlabel("epoch")
    panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    return figure


def log_scale(axes: Axes) -> None:
    """Ticks are plain numbers: powers would be mathematical text, which stays unparsed here."""
    from matplotlib.ticker import LogLocator, NullLocator

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")


def _mark(axes: Axes, epoch: int, last: int) -> None:
    """Words at the line of the chosen epoch, on the side where there is room."""
    offset, side = ((-6, -4), "right") if epoch > 0.6 * last else ((6, -4), "left")
    where = axes.get_xaxis_transform()
    text = f"chosen: epoch {epoch:,}"
    axes.annotate(text, (epoch, 1.0), offset, where, "offset points", ha=side, va="top", color=INK)


@styled
def histogram(hosts: Mapping[str, Sequence[float | None]], by: MeasuredBy) -> Figure:
    """How many hosts are where by the metric: random initialisation, translated, trained target."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    colours = {"random_init": GREY, "translated": BLUE, "trained_target": ORANGE}
    low, high = by.bounds or _reach(value for name in colours for value in finite(hosts.get(name, [])))
    values = {name: [min(max(v, low), high) for v in finite(hosts.get(name, []))] for name in colours}
    figure = Figure(figsize=(7.2, 3.0), layout="constrained")
    axes = figure.subplots()
    edges = [low + i * (high - low) / BINS for i in range(BINS + 1)]
    for name, colour in colours.items():
        if values[name]:
            axes.hist(values[name], edges, histtype="stepfilled", color=colour, alpha=0.35, label=label(name))
            axes.hist(values[name], edges, histtype="step", color=colour, linewidth=1.6)
    axes.set_xlim(low, high)
    axes.xaxis.set_major_locator(MaxNLocator(10))
    axes.set_xlabel(f"{by.name} of a host{by.unit and f', {by.unit}'}")
    axes.set_ylabel("hosts")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y")
    if any(values.values()):
        figure.legend(loc="outside upper left", ncols=len(colours))
    return figure


def _reach(values: Iterable[float]) -> tuple[float, float]:
    """The lowest and the highest of some values, apart from each other."""
    listed = [*values] or [0.0]
    low, high = min(listed), max(listed)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


@styled
def feature_maps(maps: Mapping[str, Tensor]) -> Figure:
    """Feature maps `[images, height, width]` by name: a column for each name, each map on its own scale."""
    from matplotlib.figure import Figure

    names = sorted(maps, key=lambda name: (list(MAPS).index(name) if name in MAPS else len(MAPS), name))
    rows = min(MOST_IMAGES, max((len(maps[name]) for name in names), default=0))
    cell = min(1.15, 7.2 / max(1, len(names)))
    figure = Figure(figsize=(cell * max(1, len(names)), cell * max(1, rows) + 0.45), layout="constrained")
    figure.get_layout_engine().set(w_pad=0, h_pad=0.02, wspace=0, hspace=0)  # type: ignore[union-attr, call-arg]
    columns = figure.subplots(1, max(1, len(names)), squeeze=False)[0]
    for axes, name in zip(columns, names, strict=False):
        for row, image in enumerate(maps[name].detach().cpu().float().numpy()[:rows]):
            width = image.shape[1] / image.shape[0]
            # `none` keeps the pixels as they are: the page scales them without blurring.
            colours = "gray" if name == "input" else "viridis"
            axes.imshow(
                image, cmap=colours, interpolation="none", extent=(0.03 * width, 0.97 * width, row + 0.97, row + 0.03)
            )
            axes.set_xlim(0, width)
        axes.set_ylim(rows, 0)
        title = (MAPS.get(name) or label(name)).replace(" ", "\n", 1)
        weight = "bold" if name == "translated" else "normal"
        axes.set_title(title, fontsize=8.5, color=INK, fontweight=weight)
    for axes in columns:
        axes.set_axis_off()
    return figure


@styled
def svg(figure: Figure, name: str, description: str) -> str:
    """The figure as an `<svg>` element for inside a page: `name` keeps its ids apart, `description` is read aloud.

    The same figure gives the same text. Every text from outside has been escaped by the XML writers.
    """
    import matplotlib

    buffer = BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    root = ElementTree.fromstring(buffer.getvalue())
    for parent in list(root.iter()):
        for child in list(parent):
            # Metadata names the web; matplotlib's style sheet would apply to the whole page.
            if child.tag.endswith(("}metadata", "}style")):
                parent.remove(child)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        element.attrib = {key.rpartition("}")[2]: _in_page(key, value, name) for key, value in element.attrib.items()}
    width = float(root.attrib.pop("width").removesuffix("pt"))
    root.attrib.pop("height")
    root.set("style", f"max-width: {width * 1.5:.0f}px; stroke-linejoin: round")
    root.set("role", "img")
    root.set("aria-label", description)
    return ElementTree.tostring(root, encoding="unicode")


def _in_page(key: str, value: str, name: str) -> str:
    """An attribute's value with ids that are the figure's own, and colours that are the page's."""
    if key == "id":
        return f"{name}-{value}"
    if key.endswith("href"):
        return re.sub("^#", f"#{name}-", value)
    value = value.replace("url(#", f"url(#{name}-")
    for colour, variable in PAGE_COLOURS.items():
        value = value.replace(colour, f"var({variable}, {colour})")
    return value
