"""Augmenters: random masking and noise addition, as in the paper, and random members of an orbit."""
