"""Announces the translators in this package's folders."""

from paramtrans import Component, hookimpl


@hookimpl
def paramtrans_pretrained_translators() -> list[Component]:
    return [
        Component("mnist_conv_to_conv", "MNIST example: conv to smaller conv", "paramtrans_pretrained.folders:CONV"),
        Component("mnist_conv_to_mlp", "MNIST example: conv to a channel MLP", "paramtrans_pretrained.folders:MLP"),
        Component("mnist_conv_to_attn", "MNIST example: conv to attention", "paramtrans_pretrained.folders:ATTN"),
    ]
