"""What this plugin announces."""

from paramtrans import Component, hookimpl


@hookimpl
def paramtrans_translators() -> list[Component]:
    summary = "the source's most useful hidden units, what reads them solved by least squares"
    return [Component("refit", summary, "paramtrans_refit.translator:Refit")]
