"""All methods of a run by its metric: tables for a terminal and in Markdown, and the finding in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from rich.table import Table
from rich.text import Text

from paramtrans.api.records import MeasuredBy, MethodResult
from paramtrans.ops.statistics import gap_closed
from paramtrans.report.figures import finite, label, ordered
from paramtrans.utils.counts import counted

NOT_RIVALS = ("source", "trained_target", "translated")


class Measurements(Protocol):
    """All methods, and what they are measured by."""

    @property
    def metric(self) -> MeasuredBy: ...

    @property
    def methods(self) -> Mapping[str, MethodResult]: ...


def table(result: Measurements) -> Table:
    """The metric of all methods, for a terminal."""
    shown = Table(title=title(result.metric), title_justify="left")
    shown.add_column("method")
    for heading in ("mean", "95% interval", "min", "max", "n"):
        shown.add_column(heading, justify="right", no_wrap=True)
    for row in rows(result):
        cells = [row["label"], row["mean"], row["interval"], row["min"], row["max"], row["n"]]
        # Text, because a name from a plugin is no markup.
        shown.add_row(*map(Text, cells), style="bold green" if row["name"] == "translated" else None)
    return shown


def rows(result: Measurements) -> list[dict[str, str]]:
    """A line of words for each method."""
    methods, digits = result.methods, result.metric.digits
    return [
        {
            "name": name,
            "label": label(name),
            "mean": number(method.mean, digits),
            "interval": interval(method.ci95, digits),
            "min": number(method.min, digits),
            "max": number(method.max, digits),
            "n": f"{method.n:,}",
        }
        for name, method in ((name, methods[name]) for name in ordered(methods))
    ]


def title(by: MeasuredBy) -> str:
    """What a table of the report hosts is called in a terminal."""
    unit = f", {by.unit}" if by.unit else ""
    return f"{_capital(by.name)} on the report hosts{unit}{_direction(by)}"


def caption(by: MeasuredBy, where: str) -> str:
    """What a table of a page is about."""
    unit = f", {_in_unit(by)}" if by.unit else ""
    return f"{_capital(by.name)} on {where}{unit}, over the report hosts{_direction(by)}"


def in_words(by: MeasuredBy) -> str:
    """The metric at the beginning of a sentence."""
    unit = f" {_in_unit(by)}" if by.unit else ""
    return f"{_capital(by.name)}{unit}{_direction(by)}"


def _in_unit(by: MeasuredBy) -> str:
    return "in percent" if by.unit == "%" else f"in {by.unit}"


def _direction(by: MeasuredBy) -> str:
    return "" if by.higher_is_better else " (lower is better)"


def _capital(name: str) -> str:
    return name[:1].upper() + name[1:]


def markdown_table(result: Measurements) -> str:
    """The metric of all methods, in Markdown."""
    unit = f" {result.metric.unit}" if result.metric.unit else ""
    lines = [f"| method | mean{unit} | 95% interval | min | max | hosts |", "| --- | --- | --- | --- | --- | --- |"]
    for row in rows(result):
        cells = (row[key] for key in ("label", "mean", "interval", "min", "max", "n"))
        lines.append("| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |")
    return "\n".join(lines)


def headline(result: Measurements) -> list[str]:
    """The finding in a sentence or two."""
    methods, by = result.methods, result.metric
    if "translated" not in methods:
        return ["No translated block was evaluated."]
    translated = methods["translated"]
    name = "" if by.name == "accuracy" else f"{by.name} "  # percents are taken for it anyway
    first = f"Translated blocks reach {name}{by.shown(translated.mean)}"
    if len(finite(translated.ci95)) == 2:
        first += f" (95% interval {interval(translated.ci95, by.digits)})"
    first += f" on {counted(translated.n, 'report host')}"
    others = [f"the source network has {by.shown(methods['source'].mean)}"] if "source" in methods else []
    names = [name for name in ordered(methods) if name not in NOT_RIVALS]
    rivals = {name: mean for name in names for mean in finite([methods[name].mean])}
    if rivals:
        best = (max if by.higher_is_better else min)(rivals, key=lambda name: rivals[name])
        has = "" if others else " has"
        others.append(f"the best rival ({label(best)}){has} {by.shown(rivals[best])}")
    sentences = [first + "; " * bool(others) + ", ".join(others) + "."]
    if rivals and translated.mean is not None and not by.better(translated.mean, rivals[best]):
        sentences.append("So that rival does at least as well.")
    return sentences + _gap_sentence(result)


def _gap_sentence(result: Measurements) -> list[str]:
    share = gap(result)
    if share is None:
        return []
    low, high = (result.metric.shown(result.methods[name].mean) for name in ("random_init", "trained_target"))
    closed = f"{100 * share:.1f}%" if share > 0 else "none"
    return [f"That closes {closed} of the gap from random initialisation ({low}) to the trained target ({high})."]


def gap(result: Measurements) -> float | None:
    """Share of the gap that the translated block closes; None without a gap."""
    means = {name: method.mean for name, method in result.methods.items()}
    return gap_closed(means, "translated", result.metric.higher_is_better)


def number(value: float | None, digits: int = 1) -> str:
    return f"{value:,.{digits}f}" if finite([value]) else "–"


def interval(ends: Sequence[float | None], digits: int = 1) -> str:
    """The two ends; with words between them where one is below zero, as a dash would be a minus."""
    if len(finite(ends)) != 2:
        return "–"
    between = " to " if min(finite(ends)) < 0 else "–"
    return between.join(number(end, digits) for end in ends)
