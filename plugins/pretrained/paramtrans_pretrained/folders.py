"""Where the translator stands: written by `python plugins/pretrained/refresh.py`, from a run of `examples/quality/`."""

from __future__ import annotations

from pathlib import Path

CONV = Path(__file__).parent / "mnist_conv_to_conv"
