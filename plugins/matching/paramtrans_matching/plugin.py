"""What this plugin announces."""

from paramtrans import Component, hookimpl


@hookimpl
def paramtrans_translators() -> list[Component]:
    summary = "optimiser steps on the target block to compute what the source block does, many hosts at once"
    return [Component("matching", summary, "paramtrans_matching.translator:Matching")]
