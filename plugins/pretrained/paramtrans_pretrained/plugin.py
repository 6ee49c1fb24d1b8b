"""Announces the translators in this package's folders."""

from paramtrans import Component, hookimpl


@hookimpl
def paramtrans_pretrained_translators() -> list[Component]:
    return []
