"""Small figures as SVG, written without a library: the same numbers give the same bytes on every machine.

A figure has its own background and two sets of colours, of which it takes the one that the reader's system asks for.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

COLOURS = {
    "black": ("#1f2328", "#e6e9ee"),
    "blue": ("#0b62b8", "#6cb6ff"),
    "orange": ("#b45309", "#f0a35e"),
    "green": ("#1a7f4b", "#56d38e"),
    "grey": ("#656d76", "#9aa4af"),
}
"""What is drawn, in the light and in the dark."""
SURFACES = {
    "page": ("#ffffff", "#1b1f27"),
    "box": ("#f3f6fa", "#262c37"),
    "line": ("#c8d0d9", "#4a5361"),
    "ink": ("#1f2328", "#e6e9ee"),
    "quiet": ("#57606a", "#aab3be"),
}
FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'
ROW, GAP = 26, 36
"""Height of a row of a dot plot, and what is left between its columns."""


@dataclass(frozen=True)
class Axis:
    """Values to places: `low` is drawn at `start`, `high` at `end`; what lies outside stays at the edge."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def at(self, value: float) -> float:
        value = min(max(value, self.low), self.high)
        low, high = (math.log(end) if self.logarithmic else end for end in (self.low, self.high))
        share = ((math.log(value) if self.logarithmic else value) - low) / (high - low)
        return self.start + share * (self.end - self.start)


@dataclass(frozen=True)
class Column:
    """One axis of a dot plot, below its heading; `reference` is a value with a line of its own."""

    heading: str
    low: float
    high: float
    ticks: tuple[float, ...]
    reference: float | None = None
    colour: str = ""
    """Of all its marks, in place of those of the rows."""


Interval = tuple[float, float, float]
"""A value with the ends of its interval."""


def figure(width: int, height: int, title: str, parts: Iterable[str]) -> str:
    """A whole file. `title` is what it shows, for those who cannot see it."""
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
            ' role="img">',
            f"<title>{escape(title)}</title>",
            f"<style>{style()}</style>",
            f'<rect class="page" x="0.5" y="0.5" width="{width - 1}" height="{height - 1}" rx="8"/>',
            *parts,
            "</svg>",
            "",
        ]
    )


def style() -> str:
    """Rules for both sets of colours; a reader that knows no media query sees the light one."""
    always = (
        f"text {{ font: 13px {FONT}; }} .small {{ font-size: 11.5px }} .strong {{ font-weight: 600 }} "
        '.code { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; '
        "font-weight: 600 } .middle { text-anchor: middle } .end { text-anchor: end } path { fill: none } "
        ".dashed { stroke-dasharray: 5 4 }"
    )
    return f"{always} {_rules(0)} @media (prefers-color-scheme: dark) {{ {_rules(1)} }}"


def _rules(which: int) -> str:
    of = {name: pair[which] for name, pair in SURFACES.items()}
    rules = [
        f"text {{ fill: {of['ink']} }} .quiet {{ fill: {of['quiet']} }}",
        f".page {{ fill: {of['page']}; stroke: {of['line']} }} .box {{ fill: {of['box']}; stroke: {of['line']} }}",
        f".grid {{ stroke: {of['line']}; stroke-width: 1 }} .axis {{ stroke: {of['quiet']}; stroke-width: 1 }}",
        f".band {{ fill: {of['box']} }}",
        f".arrow {{ stroke: {of['quiet']}; stroke-width: 1.5 }} .head {{ fill: {of['quiet']} }}",
    ]
    for name, pair in COLOURS.items():
        rules.append(f".{name} {{ stroke: {pair[which]}; fill: {pair[which]}; stroke-width: 2 }}")
        rules.append(f".{name}.hollow {{ fill: {of['page']} }} path.{name} {{ fill: none }}")
    return " ".join(rules)


def text(x: float, y: float, words: str, kind: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}"{_class(kind)}>{escape(words)}</text>'


def lines(x: float, y: float, words: str, kind: str = "", apart: int = 15) -> list[str]:
    """Text of several lines."""
    return [text(x, y + apart * number, line, kind) for number, line in enumerate(words.split("\n"))]


def line(x1: float, y1: float, x2: float, y2: float, kind: str, dashed: bool = False) -> str:
    dashes = ' stroke-dasharray="5 4"' if dashed else ""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"{_class(kind)}{dashes}/>'


def path(points: Sequence[tuple[float, float]], kind: str) -> str:
    """A line through points."""
    return f'<path d="M{" L".join(f"{x:.1f} {y:.1f}" for x, y in points)}"{_class(kind)}/>'


def box(x: float, y: float, width: float, height: float, kind: str = "box") -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="6"{_class(kind)}/>'


def arrow(x1: float, y1: float, x2: float, y2: float) -> list[str]:
    """A straight line with a head at its end."""
    angle = math.atan2(y2 - y1, x2 - x1)
    corners = [(x2, y2)]
    for turn in (2.6, -2.6):
        corners.append((x2 + 9 * math.cos(angle + turn), y2 + 9 * math.sin(angle + turn)))
    head = " ".join(f"{x:.1f},{y:.1f}" for x, y in corners)
    end = (x2 - 6 * math.cos(angle), y2 - 6 * math.sin(angle))
    return [line(x1, y1, *end, "arrow"), f'<polygon points="{head}" class="head"/>']


def mark(shape: str, x: float, y: float, kind: str) -> str:
    """A circle, a square or a triangle."""
    if shape == "circle":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5"{_class(kind)}/>'
    corners = {
        "square": [(-4.2, -4.2), (4.2, -4.2), (4.2, 4.2), (-4.2, 4.2)],
        "triangle": [(0, -5.5), (5.2, 4.2), (-5.2, 4.2)],
    }[shape]
    return f'<polygon points="{" ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in corners)}"{_class(kind)}/>'


def dot_plot(
    title: str,
    columns: Sequence[Column],
    rows: Sequence[tuple[str, str, Sequence[Interval | None]]],
    label: int = 250,
    wide: int = 150,
) -> str:
    """Values with their intervals: a row a method (label, colour, an interval for each column), an axis a column."""
    top = 22 + 15 * max(column.heading.count("\n") + 1 for column in columns)
    bottom = top + ROW * len(rows)
    width, parts = label + (wide + GAP) * len(columns), []
    for place, (name, _, _) in enumerate(rows):
        y = top + ROW * place
        parts += [] if place % 2 else [f'<rect x="6" y="{y}" width="{width - 12}" height="{ROW}" class="band"/>']
        parts.append(text(14, y + ROW / 2 + 4.5, name))
    for number, column in enumerate(columns):
        start = label + number * (wide + GAP)
        axis = Axis(column.low, column.high, start, start + wide)
        parts += lines(start + wide / 2, 24, column.heading, "middle strong small")
        for tick in column.ticks:
            parts.append(line(axis.at(tick), top, axis.at(tick), bottom, "grid"))
            parts.append(text(axis.at(tick), bottom + 17, f"{tick:g}".replace("-", "−"), "middle small quiet"))
        if column.reference is not None:
            parts.append(line(axis.at(column.reference), top, axis.at(column.reference), bottom, "axis", dashed=True))
        for place, (_, colour, cells) in enumerate(rows):
            if (cell := cells[number]) is not None:
                y, (value, low, high) = top + ROW * (place + 0.5), cell
                parts.append(line(axis.at(low), y, axis.at(high), y, column.colour or colour))
                parts.append(mark("circle", axis.at(value), y, column.colour or colour))
    return figure(width, bottom + 30, title, parts)


def _class(kind: str) -> str:
    return f' class="{kind}"' if kind else ""
