"""What this plugin announces."""

from paramtrans import Component, hookimpl


@hookimpl
def paramtrans_executors() -> list[Component]:
    return [Component("local", "one shard after the other, in this process", "paramtrans_executors.local:Local")]
