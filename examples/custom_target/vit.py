"""The attention of a small vision transformer with random weights becomes pooled attention."""

from pathlib import Path

import torch
from transformers import ViTConfig, ViTModel

import paramtrans

plugins = paramtrans.Plugins()
plugins.load_entry_points()
plugins.load_file(Path(__file__).with_name("pooled_attention.py"))
torch.manual_seed(0)
sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
network = ViTModel(ViTConfig(**sizes, image_size=32, patch_size=8, initializer_range=0.1)).eval()
images = torch.randn(64, 3, 32, 32)
small = paramtrans.translate(
    network,
    to={"*.attention": "pooled_attention"},
    calibrate=images.split(16),
    options={"steps": 50},
    registry=plugins.registry(),
)
for block in small.paramtrans_blocks:
    print(block.path, *block.parameters, round(block.start_error, 3), "→", round(block.feature_error, 3))
