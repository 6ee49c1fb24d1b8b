"""Block adapters: those of the paper (BasicBlock, convolutions, MLP, attention), chains, heads and low rank."""
