"""What this plugin announces."""

from paramtrans import Component, hookimpl


@hookimpl
def paramtrans_translators() -> list[Component]:
    package = "paramtrans_refit"
    summary = "the source's most useful hidden units, what reads them solved by least squares"
    return [
        Component("refit", summary, f"{package}.translator:Refit"),
        Component("prune", "the source's hidden units with the largest weights", f"{package}.without:Prune"),
        Component("select", "hidden units of the source at even distances", f"{package}.without:Select"),
        Component("low_rank", "each convolution as two thinner ones, by SVD", f"{package}.low_rank:LowRank"),
        Component("quantise", "the source block, its weights rounded to a few bits", f"{package}.quantise:Quantise"),
        Component("merge", "hidden units of the source merged where they are fed alike", f"{package}.without:Merge"),
    ]
