"""What this plugin announces."""

from paramtrans import Component, hookimpl


@hookimpl
def paramtrans_block_adapters() -> list[Component]:
    package = "paramtrans_blocks"
    return [
        Component("basic_block", "ResNet BasicBlock: two convolutions with BatchNorm", f"{package}.basic:BasicBlock"),
        Component("conv", "two convolutions without normalisation", f"{package}.conv:Conv"),
        Component("low_rank", "two convolutions, each as two thinner ones", f"{package}.low_rank:LowRank"),
        Component("mlp", "channel MLP at each position", f"{package}.mlp:MLP"),
        Component("conv_chain", "convolutions of ResNet, MobileNet and VGG blocks", f"{package}.conv_chain:ConvChain"),
        Component("linear_chain", "MLPs and transformer feed-forward", f"{package}.linear_chain:LinearChain"),
        Component("heads", "multi-head attention of transformers, head by head", f"{package}.heads:Heads"),
        Component("attention", "single-head self-attention over positions", f"{package}.attention:Attention"),
    ]
