"""Finished runs side by side: their metric, what differs in their configs, and whether they may be compared at all."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from markupsafe import Markup
from rich.console import Group
from rich.table import Table
from rich.text import Text

from paramtrans.api.records import Evaluation, Measured, MeasuredBy, MethodResult, RunRecord
from paramtrans.config.schema import ELSEWHERE
from paramtrans.errors import StoreError, printable
from paramtrans.ops.statistics import summarise
from paramtrans.report import figures, findings, sweep_figures
from paramtrans.report.figures import label, ordered
from paramtrans.runs import folder as run_folder
from paramtrans.storage import files
from paramtrans.utils.templates import environment

NONE = "–"


@dataclass(frozen=True)
class Compared:
    """One of the runs."""

    name: str
    record: RunRecord
    evaluation: Evaluation

    @property
    def methods(self) -> dict[str, MethodResult]:
        return self.evaluation.methods

    @property
    def values(self) -> dict[str, Any]:
        """Everything in its config by dotted path, without where it was made."""
        config = {key: value for key, value in self.record.config.items() if key not in ELSEWHERE}
        return dict(_flat(config))

    @property
    def hosts(self) -> tuple[Any, ...]:
        """What tells its report hosts from others: their seeds, and what the source networks reach."""
        hosts = self.evaluation.hosts
        return (*hosts.seeds, None, *hosts.accuracies.get("source", ()))


def read(folders: Sequence[Path]) -> list[Compared]:
    """The runs in these folders, under names that differ.

    Raises `StoreError` where one is not finished, or measured by another metric than the others.
    """
    runs: list[Compared] = []
    for folder in folders:
        record, evaluation = run_folder.read_finished(folder)
        name = printable(folder.resolve().name)
        if any(run.name == name for run in runs):
            name = printable(str(folder))
        if any(run.name == name for run in runs):
            raise StoreError(f"{folder}: is named twice")
        if runs and evaluation.metric != (first := runs[0]).evaluation.metric:
            by, of_first = evaluation.metric.heading, first.evaluation.metric.heading
            raise StoreError(f"{folder}: is measured by {by}, {first.name} by {of_first}; compare runs of one metric")
        runs.append(Compared(name, record, evaluation))
    return runs


def compare(runs: Sequence[Compared]) -> dict[str, Any]:
    """All of it, as `paramtrans compare --json` prints it."""
    versions = {run.name: {**run.record.versions} for run in runs}
    return {
        "runs": [run.name for run in runs],
        "metric": runs[0].evaluation.metric.model_dump(),
        "methods": {
            name: {run.name: _short(run.methods[name]) for run in runs if name in run.methods}
            for name in ordered({name for run in runs for name in run.methods})
        },
        "config": _differing({run.name: run.values for run in runs}),
        "versions": _differing(versions),
        "same_hosts": len({run.hosts for run in runs}) == 1,
        "difference": _difference(runs),
    }


def tables(comparison: Mapping[str, Any]) -> Group:
    """For a terminal: means of all methods, differences, and what is to be said about them."""
    title = findings.title(metric_of(comparison))
    parts: list[Any] = [_table(title, "method", *means(comparison), bold="translated")]
    for key, title in (("config", "Configs differ in"), ("versions", "Versions differ in")):
        if comparison[key]:
            parts.append(_table(title, "", comparison["runs"], _cells(comparison, key)))
    return Group(*parts, *(Text(line) for line in remarks(comparison)))


def metric_of(comparison: Mapping[str, Any]) -> MeasuredBy:
    """What all of the runs are measured by."""
    return MeasuredBy.model_validate(comparison["metric"])


def means(comparison: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Names of the runs, and a line for each method: its name, then mean and interval in each run."""
    lines, digits = [], metric_of(comparison).digits
    for name, of_run in comparison["methods"].items():
        cells = [findings.number(of_run.get(run, {}).get("mean"), digits) for run in comparison["runs"]]
        intervals = [findings.interval(of_run.get(run, {}).get("ci95", ()), digits) for run in comparison["runs"]]
        lines.append([label(name), *(f"{c} ({i})" if i != NONE else c for c, i in zip(cells, intervals, strict=True))])
    return list(comparison["runs"]), lines


def remarks(comparison: Mapping[str, Any]) -> list[str]:
    """What must be known to read the tables."""
    said, digits = [], metric_of(comparison).digits
    if comparison["same_hosts"]:
        said += [
            f"Translated, {run} less {comparison['runs'][0]}, host by host: {gap['mean']:+.{digits}f} "
            f"(95% interval {gap['ci95'][0]:+.{digits}f} to {gap['ci95'][1]:+.{digits}f})."
            for run, gap in comparison["difference"].items()
        ]
    else:
        said.append(
            "The runs were reported on different hosts: differences between them are not those of methods alone."
        )
    if not comparison["config"]:
        said.append("The configs are the same.")
    return said


def write(path: Path, comparison: Mapping[str, Any]) -> None:
    """The page to look at, complete in itself."""
    runs, lines = means(comparison)
    by, translated = metric_of(comparison), comparison["methods"].get("translated", {})
    said = f"Mean {by.name} of the translated blocks of each run, with its 95% interval."
    page = (
        environment()
        .get_template("compare.html.jinja")
        .render(
            runs=runs,
            lines=lines,
            config=_cells(comparison, "config"),
            versions=_cells(comparison, "versions"),
            remarks=remarks(comparison),
            figure=Markup(figures.svg(sweep_figures.means(translated, by), "means", said)) if translated else "",
            caption=findings.title(by),
            said=said,
        )
    )
    files.write_bytes(path, page.encode("utf-8", errors="replace"))


def _short(method: MethodResult) -> dict[str, Any]:
    return method.model_dump(include=set(Measured.model_fields))


def _difference(runs: Sequence[Compared]) -> dict[str, Any]:
    """Of the translated blocks of each run to those of the first, host by host, where the hosts are the same."""
    first, *others = runs
    if any(run.hosts != first.hosts for run in others):
        return {}
    values = {run.name: run.evaluation.hosts.accuracies.get("translated") for run in runs}
    if None in values.values():
        return {}
    base = torch.tensor(values[first.name], dtype=torch.float64)
    gaps = {run.name: summarise(torch.tensor(values[run.name], dtype=torch.float64) - base) for run in others}
    return {name: {"mean": gap.mean, "ci95": list(gap.ci95)} for name, gap in gaps.items()}


def _flat(value: Any, path: str = "") -> Iterable[tuple[str, Any]]:
    """Every value of a nested document with its dotted path."""
    if isinstance(value, dict) and value:
        for key, below in value.items():
            yield from _flat(below, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for number, item in enumerate(value):
            yield from _flat(item, f"{path}.{number}")
    else:
        yield path, value


def _differing(values: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Paths at which not all runs have the same value, with the value of each that has one."""
    paths = dict.fromkeys(path for of_run in values.values() for path in of_run)
    rows = {path: {name: of_run[path] for name, of_run in values.items() if path in of_run} for path in paths}
    return {
        path: row
        for path, row in rows.items()
        if len(row) < len(values) or len({json.dumps(value, sort_keys=True) for value in row.values()}) > 1
    }


def _cells(comparison: Mapping[str, Any], key: str) -> list[list[str]]:
    return [
        [path, *(json.dumps(row[run], ensure_ascii=False) if run in row else NONE for run in comparison["runs"])]
        for path, row in comparison[key].items()
    ]


def _table(title: str, first: str, runs: Sequence[str], lines: Sequence[Sequence[str]], bold: str = "") -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column(first, overflow="fold")
    for run in runs:
        table.add_column(Text(run), justify="right", overflow="fold")
    for line in lines:
        table.add_row(*map(Text, line), style="bold green" if line[0] == bold else None)
    return table
