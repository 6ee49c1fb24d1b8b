"""A translator that respects what may change places in a block: hidden units, and the residual stream's channels."""
