"""What this plugin announces."""

from paramtrans import Component, hookimpl


@hookimpl
def paramtrans_executors() -> list[Component]:
    return [
        Component(
            "ray",
            "shards on the machines of a Ray cluster (pip install paramtrans[ray])",
            "paramtrans_ray.executor:Ray",
        )
    ]
