"""What this plugin announces."""

from paramtrans import Component, hookimpl


@hookimpl
def paramtrans_metrics() -> list[Component]:
    return [Component("top_k", "how often the label is among the k highest outputs", "paramtrans_metrics.top_k:TopK")]


@hookimpl
def paramtrans_report_sections() -> list[Component]:
    return [
        Component("metrics", "a table of the metrics that a run has measured", "paramtrans_metrics.section:MetricTable")
    ]
