"""A small translator that was trained on the MNIST example, to use at once."""
