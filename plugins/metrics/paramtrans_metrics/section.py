"""A table of the metrics that a run has measured."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any, ClassVar

from paramtrans.api.report_section import ReportSection


class MetricTable(ReportSection):
    """The mean of each metric for each method; left out where none was measured."""

    title: ClassVar[str] = "Metrics"

    def html(self, run: Mapping[str, Any], evaluation: Mapping[str, Any]) -> str:
        measured = {
            name: summaries for name, method in evaluation["methods"].items() if (summaries := method.get("metrics"))
        }
        metrics = list(dict.fromkeys(metric for summaries in measured.values() for metric in summaries))
        if not metrics:
            return ""
        head = "".join(f'<th scope="col">{escape(metric)}</th>' for metric in metrics)
        rows = "".join(
            f'<tr><th scope="row">{escape(name)}</th>'
            + "".join(f"<td>{summaries[metric]['mean']:.4g}</td>" for metric in metrics)
            + "</tr>"
            for name, summaries in measured.items()
        )
        return (
            f'<div class="card scroll" tabindex="0" role="region" aria-label="Table of metrics"><table><thead><tr>'
            f'<th scope="col">method</th>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
        )
