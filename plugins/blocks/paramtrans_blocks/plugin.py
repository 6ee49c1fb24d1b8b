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
        Component(
            "depthwise_separable", "each convolution as a depthwise one and a 1×1", f"{package}.separable:Separable"
        ),
        Component("low_rank_conv", "each convolution as a thin one and a 1×1", f"{package}.low_rank_conv:LowRankConv"),
        Component("grouped_conv", "each convolution as a grouped one and a 1×1", f"{package}.grouped_conv:GroupedConv"),
        Component(
            "merged_conv", "one convolution for branches that are added (RepVGG)", f"{package}.merged_conv:MergedConv"
        ),
        Component("rms_norm", "a normalisation by the mean square", f"{package}.norms:RmsNorm"),
        Component("layer_norm", "a normalisation by mean and variance", f"{package}.norms:LayerNorm"),
        Component("bottleneck", "a thinner convolution between two of 1×1", f"{package}.bottleneck:Bottleneck"),
        Component(
            "grouped_query", "attention whose heads share keys and values", f"{package}.grouped_query:GroupedQuery"
        ),
        Component(
            "latent_attention", "attention with low-rank keys and values", f"{package}.latent_attention:LatentAttention"
        ),
        Component(
            "linear_attention",
            "attention by products of features, with or without a window of softmax",
            f"{package}.linear_attention:LinearAttention",
        ),
        Component(
            "state_space", "positions mixed by sums that fade, as in Mamba-2", f"{package}.state_space:StateSpace"
        ),
        Component("conv_mixer", "positions mixed by a gated convolution", f"{package}.conv_mixer:ConvMixer"),
        Component("gated_mlp", "feed-forward with gates (SwiGLU, GEGLU)", f"{package}.gated_mlp:GatedMlp"),
        Component(
            "mixture_of_experts",
            "feed-forward as experts, of which each position asks some",
            f"{package}.mixture:Mixture",
        ),
        Component("low_rank_linear", "a linear layer as two thinner ones", f"{package}.low_rank_linear:LowRankLinear"),
        Component("linear_map", "a linear map in place of a whole block", f"{package}.linear_map:LinearMap"),
        Component("monarch", "a linear layer as two block-diagonal ones", f"{package}.monarch:Monarch"),
        Component("sequence", "several blocks one behind the other, of any kinds", f"{package}.sequence:Sequence"),
        Component("attention", "single-head self-attention over positions", f"{package}.attention:Attention"),
    ]
