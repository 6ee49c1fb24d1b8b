"""What this plugin announces."""

from paramtrans import Component, hookimpl


@hookimpl
def paramtrans_tasks() -> list[Component]:
    package = "paramtrans_mnist"
    return [
        Component("mnist", "handwritten digits, shipped with paramtrans", f"{package}.tasks:MNIST"),
        Component("digits", "1,797 small handwritten digits of another origin, shipped", f"{package}.tasks:Digits"),
        Component("fashion_mnist", "articles of clothing, downloaded by torchvision", f"{package}.tasks:FashionMNIST"),
        Component("usps", "handwritten digits of another origin, downloaded by torchvision", f"{package}.tasks:USPS"),
    ]
