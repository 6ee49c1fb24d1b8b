"""Backbones over parameter tokens: Mixer, MLP, attention and convolution; and translators that another run trained."""
