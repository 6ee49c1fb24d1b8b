"""What this plugin announces."""

from paramtrans import Component, hookimpl


@hookimpl
def paramtrans_tasks() -> list[Component]:
    package = "paramtrans_synthetic"
    return [
        Component("chirps", "signals whose frequency rises or falls, drawn", f"{package}.signal:Chirps"),
        Component("friedman", "rows of a table with a number to be met, drawn", f"{package}.table:Friedman"),
        Component("grammar", "the next of six tokens in sequences, drawn", f"{package}.tokens:Grammar"),
    ]
