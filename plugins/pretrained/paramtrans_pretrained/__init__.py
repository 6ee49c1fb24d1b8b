"""Translators that were trained on the MNIST examples, to use at once."""
