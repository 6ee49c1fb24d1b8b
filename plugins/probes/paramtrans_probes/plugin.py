"""What this plugin announces."""

from paramtrans import Component, hookimpl


@hookimpl
def paramtrans_probes() -> list[Component]:
    package = "paramtrans_probes"
    return [
        Component("images", "unlabelled training images of the task", f"{package}.images:Images"),
        Component("noise", "every pixel at random", f"{package}.synthetic:Noise"),
        Component("smooth", "random fields without sharp edges", f"{package}.synthetic:Smooth"),
        Component("strokes", "random strokes of a pen on black", f"{package}.synthetic:Strokes"),
        Component(
            "bn_statistics", "made to fit each network's own BatchNorm statistics", f"{package}.recalled:Recalled"
        ),
    ]
