"""What this plugin announces."""

from paramtrans import Component, hookimpl


@hookimpl
def paramtrans_metrics() -> list[Component]:
    package = "paramtrans_metrics"
    return [
        Component("accuracy", "how often the highest output is the label's", f"{package}.accuracy:Accuracy"),
        Component("top_k", "how often the label is among the k highest outputs", f"{package}.top_k:TopK"),
        Component("token_accuracy", "the same as accuracy, token by token", f"{package}.accuracy:TokenAccuracy"),
        Component("perplexity", "how many tokens a language model wavers between", f"{package}.perplexity:Perplexity"),
        Component("r2", "share of the labels' variance that outputs explain", f"{package}.regression:R2"),
        Component("auc", "area under the ROC curve of two classes", f"{package}.ranking:AUC"),
    ]


@hookimpl
def paramtrans_report_sections() -> list[Component]:
    return [
        Component("metrics", "a table of the metrics that a run has measured", "paramtrans_metrics.section:MetricTable")
    ]
