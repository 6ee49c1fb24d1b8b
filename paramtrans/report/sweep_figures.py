"""The figures of a sweep: means of all runs, and their curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from paramtrans.report.figures import BLUE, INK, finite, label, log_scale, method_line, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from paramtrans.api.records import MeasuredBy


@styled
def means(runs: Mapping[str, Mapping[str, Any]], by: MeasuredBy | None) -> Figure:
    """Mean of each run by its metric with its 95% interval; without a metric, of runs that have several."""
    from matplotlib.figure import Figure

    runs = {name: summary for name, summary in runs.items() if finite([summary["mean"]])}
    figure = Figure(figsize=(7.2, 0.8 + 0.32 * max(1, len(runs))), layout="constrained")
    axes = figure.subplots()
    for place, summary in enumerate(runs.values()):
        method_line(axes, place, summary["mean"], summary["ci95"], [], BLUE, False, by.digits if by else 3)
    axes.set_yticks(range(len(runs)), [label(name) for name in runs])
    axes.set_ylim(len(runs) - 0.4, -0.6)
    axes.set_xlabel(by.heading if by else "each run's metric")
    axes.grid(axis="x")
    return figure


@styled
def gains(runs: Mapping[str, Mapping[str, Any]], across: str, unit: str) -> Figure:
    """Mean gain of each run with its 95% interval, from left to right, in the order of the runs; `across`: what they
    differ in; `unit`: what the gain is counted in."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 3), layout="constrained")
    axes = figure.subplots()
    means = [summary["mean"] for summary in runs.values()]
    reach = [[abs(summary["ci95"][side] - summary["mean"]) for summary in runs.values()] for side in (0, 1)]
    axes.errorbar(range(len(runs)), means, yerr=reach, fmt="o-", color=BLUE, capsize=4)
    axes.axhline(0, color=INK, linewidth=0.8)
    axes.set_xticks(range(len(runs)), [label(name) for name in runs])
    axes.set_xlabel(across)
    axes.set_ylabel(f"gain, {unit}")
    axes.grid(axis="y")
    return figure


@styled
def curves(
    runs: Mapping[str, Sequence[Mapping[str, Any]]], keys: Sequence[str], by: MeasuredBy | None = None
) -> Figure:
    """A panel for each of the keys `loss` and `select`, in it a curve for each run over the epochs."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 1.1 + 2.3 * len(keys)), layout="constrained")
    panels = figure.subplots(len(keys), 1, sharex=True, squeeze=False)[:, 0]
    names = {"loss": "loss", "select": f"selection\n{by.heading}" if by else "selection"}
    for axes, key in zip(panels, keys, strict=True):
        for name, epochs in runs.items():
            known = [point for entry in epochs if len(point := finite([entry.get("epoch"), entry.get(key)])) == 2]
            axes.plot([epoch for epoch, _ in known], [value for _, value in known], label=label(name))
        axes.set_ylabel(names[key])
        axes.grid()
        losses = finite(entry.get("loss") for epochs in runs.values() for entry in epochs)
        if key == "loss" and all(loss > 0 for loss in losses):
            log_scale(axes)
    panels[-1].set_xlabel("epoch")
    if runs:
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=min(4, len(runs)))
    return figure
