"""What this plugin announces."""

from paramtrans import Component, hookimpl


@hookimpl
def paramtrans_augmenters() -> list[Component]:
    return [
        Component("mask", "random masking: values set to zero", "paramtrans_augmenters.random:Mask"),
        Component("noise", "noise addition: Gaussian", "paramtrans_augmenters.random:Noise"),
        Component("orbit", "hidden units permuted and rescaled: same function", "paramtrans_augmenters.orbit:Orbit"),
    ]
