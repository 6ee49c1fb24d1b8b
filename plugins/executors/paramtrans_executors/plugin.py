"""What this plugin announces."""

from paramtrans import Component, hookimpl


@hookimpl
def paramtrans_executors() -> list[Component]:
    return [
        Component(
            "local",
            "on this machine, in one process or several",
            "paramtrans_executors.local:Local",
        )
    ]
