"""Augmenters of the paper: random masking and noise addition."""
