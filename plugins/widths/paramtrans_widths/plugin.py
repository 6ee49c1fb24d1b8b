"""What this plugin announces."""

from paramtrans import Component, hookimpl


@hookimpl
def paramtrans_width_rules() -> list[Component]:
    package = "paramtrans_widths.rules"
    return [
        Component("ratio", "a share of the hidden units of every block", f"{package}:RatioRule"),
        Component("parameters", "one ratio for all blocks, within a budget of parameters", f"{package}:ParameterRule"),
        Component("flops", "one ratio for all blocks, within a budget of operations", f"{package}:FlopRule"),
        Component("latency", "one ratio for all blocks, within measured milliseconds", f"{package}:LatencyRule"),
        Component("measured", "within a budget, most where it harms least", f"{package}:MeasuredRule"),
    ]
