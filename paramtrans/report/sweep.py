"""What a sweep found: one table, for a terminal and for a page, and one figure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from markupsafe import Markup
from rich.table import Table
from rich.text import Text

from paramtrans.api.records import MeasuredBy
from paramtrans.report import figures, sweep_figures
from paramtrans.report.figures import finite, label
from paramtrans.storage import files, json_files
from paramtrans.utils.templates import environment

Row: TypeAlias = "dict[str, Any]"
"""One run: `name`, `values`, `dir` below the sweep's folder, `seconds`, and most of its `evaluation.json`."""

FIGURES = ("accuracies", "gain", "loss", "training")
PAGE = "report.html"
TEMPLATE = "sweep.html.jinja"
FACTS = {
    "parameters": ("translator's parameters", ("translator", "parameters")),
    "flops": ("translator's FLOPs", ("translator", "flops")),
    "target_parameters": ("target's parameters", ("blocks", "target", "parameters")),
    "target_bytes": ("target's bytes", ("translator", "target_bytes")),
    "gain": ("gain over random initialisation", ()),
    "loss": ("last loss", ("training", "loss")),
    "select": ("on selection hosts", ("training", "best_select")),
    "epoch": ("chosen epoch", ("training", "best_epoch")),
    "translated_seconds": ("translation, s a host", ("seconds_per_host", "translated")),
    "trained_target_seconds": ("step 2, s a host", ("seconds_per_host", "trained_target")),
    "paper_way": ("best of all evaluations on report hosts", ("paper_way", "best")),
}
"""Columns that are no methods: heading, and where the value stands in a row."""


def table(name: str, rows: Sequence[Row], columns: Sequence[str]) -> Table:
    """A line for each run, for a terminal."""
    shown = Table(title=f"{name}: {_measured(rows)}", title_justify="left")
    head, body = cells(rows, columns)
    for index, heading in enumerate(head):
        shown.add_column(heading, justify="left" if index < _keys_count(rows) else "right", overflow="fold")
    for line in body:
        shown.add_row(*map(Text, line))
    return shown


def cells(rows: Sequence[Row], columns: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """Headings and lines: what distinguishes the runs, then the columns that any of them has."""
    keys = list(dict.fromkeys(key for row in rows for key in row["values"]))
    shown = [column for column in columns if any(_cell(row, column) for row in rows)]
    head = [*keys, *(FACTS[column][0] if column in FACTS else label(column) for column in shown)]
    lines = [
        [*(_value(row["values"].get(key, "")) for key in keys), *(_cell(row, column) or "–" for column in shown)]
        for row in rows
    ]
    return head, lines


def write(folder: Path, name: str, rows: Sequence[Row], columns: Sequence[str], figure: str) -> Path:
    """Write the page of a sweep to its folder; returns the page's path."""
    head, body = cells(rows, columns)
    drawing, said = _figure(folder, rows, columns, figure)
    page = (
        environment()
        .get_template(TEMPLATE)
        .render(
            name=name,
            caption=_measured(rows),
            head=head,
            lines=[(row["dir"], line) for row, line in zip(rows, body, strict=True)],
            keys=_keys_count(rows),
            figure=Markup(figures.svg(drawing, "sweep", said)),
            said=said,
        )
    )
    files.write_bytes(folder / PAGE, page.encode("utf-8", errors="replace"))
    return folder / PAGE


def gains(rows: Sequence[Row]) -> Any:
    """The figure of what the translator of each run gains over random initialisation."""
    by_run = {" · ".join(_value(value) for value in row["values"].values()): gain(row) for row in rows}
    across = ", ".join(dict.fromkeys(key for row in rows for key in row["values"]))
    by = shared_metric(rows)
    return sweep_figures.gains({name: summary for name, summary in by_run.items() if summary}, across, gained_in(by))


def shared_metric(rows: Sequence[Row]) -> MeasuredBy | None:
    """The metric of all runs; None where they have several."""
    first, *others = [_metric(row) for row in rows] or [MeasuredBy()]
    return first if all(other == first for other in others) else None


def gained_in(by: MeasuredBy | None) -> str:
    """What gains are counted in."""
    return "each run's metric" if by is None else "points" if by.unit == "%" else by.heading


def _metric(row: Row) -> MeasuredBy:
    """What a run is measured by; rows of before format 2 do not say it."""
    return MeasuredBy.model_validate(row.get("metric", {}))


def _measured(rows: Sequence[Row]) -> str:
    """What a table of all runs shows."""
    by = shared_metric(rows)
    if by is None:
        return "mean of each run's metric ± 95% interval"
    unit = f", {by.unit}" if by.unit else ""
    return f"mean {by.name} ± 95% interval{unit}{'' if by.higher_is_better else ' (lower is better)'}"


def _figure(folder: Path, rows: Sequence[Row], columns: Sequence[str], figure: str) -> tuple[Any, str]:
    by = shared_metric(rows)
    if figure == "accuracies":
        # A run need not have a translator of its own: the first column that is a method.
        method = next((column for column in columns if any(column in row["methods"] for row in rows)), "translated")
        means = {row["name"]: row["methods"][method] for row in rows if method in row["methods"]}
        said = f"Mean {by.name if by else 'metric'} of each run, {label(method)}, with its 95% interval."
        return sweep_figures.means(means, by), said
    if figure == "gain":
        unit = gained_in(by)
        said = f"What translation gains over random initialisation, host by host, in {unit}, with its 95% interval."
        return gains(rows), said
    curves = {row["name"]: history(folder / row["dir"]) for row in rows}
    keys = ("loss",) if figure == "loss" else ("loss", "select")
    return sweep_figures.curves(curves, keys, by), f"{' and '.join(keys).capitalize()} of each run over the epochs."


def gain(row: Row) -> dict[str, Any] | None:
    """What translation gains over random initialisation, host by host; None where one of them is missing, or is not
    finite."""
    lost = row["methods"].get("random_init", {}).get("difference")
    if lost is None or row.get("baseline", "translated") != "translated":
        return None
    if len(finite([lost["mean"], *lost["ci95"]])) != 3:
        return None
    if not _metric(row).higher_is_better:
        return {"mean": lost["mean"], "ci95": lost["ci95"]}
    return {"mean": -lost["mean"], "ci95": [-bound for bound in reversed(lost["ci95"])]}


def history(folder: Path) -> list[dict[str, float | None]]:
    """The lines of a run's `metrics.jsonl`; none for a translator that was not trained."""
    path = folder / "metrics.jsonl"
    return json_files.read_numbers(path, "remove that run's folder") if path.exists() else []


def _cell(row: Row, column: str) -> str:
    summary = gain(row) if column == "gain" else row["methods"].get(column)
    if summary and finite([summary["mean"]]):
        digits, sign = _metric(row).digits, "+" if column == "gain" else ""
        mean, ends = f"{summary['mean']:{sign}.{digits}f}", finite(summary["ci95"])
        return f"{mean} ± {(ends[1] - ends[0]) / 2:.{digits}f}" if len(ends) == 2 else mean
    value: Any = row
    for key in FACTS[column][1] if column in FACTS else (column,):
        value = value.get(key) if isinstance(value, Mapping) else None
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else ""


def _value(value: Any) -> str:
    return str(value.get("name", value)) if isinstance(value, Mapping) else str(value)


def _keys_count(rows: Iterable[Row]) -> int:
    return len({key for row in rows for key in row["values"]})
