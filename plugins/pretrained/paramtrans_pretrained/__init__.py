"""Small translators that were trained on the MNIST example, to use at once."""
