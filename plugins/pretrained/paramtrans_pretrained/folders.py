"""Where the translators stand: written by `python plugins/pretrained/refresh.py`, from the runs of the examples."""

from __future__ import annotations

from pathlib import Path

HERE = Path(__file__).parent
CONV, MLP, ATTENTION = (HERE / f"mnist_conv_to_{target}" for target in ("conv", "mlp", "attn"))
