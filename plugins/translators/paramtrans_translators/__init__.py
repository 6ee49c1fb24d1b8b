"""Translator backbones: Mixer, MLP, attention and convolution over parameter tokens."""
