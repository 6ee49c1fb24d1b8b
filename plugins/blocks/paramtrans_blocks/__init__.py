"""Block adapters of the paper: convolution BasicBlock, plain convolutions, MLP and attention."""
