"""What this plugin announces."""

from paramtrans import Component, hookimpl


@hookimpl
def paramtrans_translators() -> list[Component]:
    summary = "attention over hidden units and channels, equivariant to permutations of both"
    return [Component("equivariant", summary, "paramtrans_equivariant.translator:Equivariant")]
