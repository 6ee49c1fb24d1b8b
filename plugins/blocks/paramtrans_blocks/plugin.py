"""What this plugin announces."""

from paramtrans import Component, hookimpl


@hookimpl
def paramtrans_block_adapters() -> list[Component]:
    package = "paramtrans_blocks"
    return [
        Component("basic_block", "ResNet BasicBlock: two convolutions with BatchNorm", f"{package}.basic:BasicBlock"),
        Component("conv", "two convolutions without normalisation", f"{package}.conv:Conv"),
        Component("mlp", "channel MLP at each position", f"{package}.mlp:MLP"),
        Component("attention", "single-head self-attention over positions", f"{package}.attention:Attention"),
    ]
