"""What this plugin announces."""

from paramtrans import Component, hookimpl


@hookimpl
def paramtrans_tasks() -> list[Component]:
    package = "paramtrans_synthetic"
    return [
        Component("friedman", "rows of a table with a number to be met, drawn", f"{package}.table:Friedman"),
    ]
