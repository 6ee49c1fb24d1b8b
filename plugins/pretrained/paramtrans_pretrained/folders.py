"""Where the translators stand: written by `python plugins/pretrained/refresh.py`, from runs of `examples/quality/`."""

from __future__ import annotations

from pathlib import Path

CONV = Path(__file__).parent / "mnist_conv_to_conv"
MLP = Path(__file__).parent / "mnist_conv_to_mlp"
ATTN = Path(__file__).parent / "mnist_conv_to_attn"
