"""ResNet-50 of torchvision, all blocks translated to half width: the whole path at full size, for its time and memory.

The weights are random, drawn from a seed, with BatchNorm statistics of images, unless `--weights` names a file of
parameters. The images are those of FashionMNIST, enlarged: what comes out says nothing about ImageNet.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from fashion_resnet import FOLDER, HELP, read
from measure import ALONE, CALIBRATED, Measured, append, interval
from rich.console import Console
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torchvision.models import resnet50

import paramtrans
from paramtrans.networks.blocks.finding import costs
from paramtrans.networks.loading import parameter_files
from paramtrans.utils.progress import ConsoleReporter

MODEL, IMAGES, BATCH, SIDE = "ResNet-50, random weights", 64, 16, 224
METHODS = {name: (CALIBRATED | ALONE)[name] for name in ("refit", "magnitude pruning")}


def network(images: list[Tensor], seed: int) -> nn.Module:
    """Random weights, each BatchNorm with the statistics that these images have there."""
    torch.manual_seed(seed)
    network_: nn.Module = resnet50(weights=None)
    for norm in network_.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = None  # the mean over all batches
    with torch.no_grad():
        for batch in images:
            network_.train()(batch)
    return network_.eval()


def enlarged(images: Tensor, side: int) -> list[Tensor]:
    """Grey images in colour, `[batch, 3, side, side]` each."""
    return [interpolate(part, size=side, mode="bilinear").repeat(1, 3, 1, 1) for part in images.split(BATCH)]


@torch.no_grad()
def errors(small: nn.Module, large: nn.Module, images: list[Tensor]) -> Tensor:
    """Squared error of each image's outputs, over the variance of the large network's over the images."""
    outputs, wanted = (torch.cat([run(batch) for batch in images]) for run in (small, large))
    return (outputs - wanted).square().sum(1) / wanted.var(0, correction=0).sum()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=FOLDER, help=HELP)
    parser.add_argument("--weights", type=Path, help="parameters of a trained ResNet-50 (safetensors, .pt or .pth)")
    parser.add_argument("--seed", type=int, default=0, help="of the random weights")
    parser.add_argument("--images", type=int, default=IMAGES, help="how many to calibrate on")
    parser.add_argument("--side", type=int, default=SIDE, help="of the images, in pixels")
    parser.add_argument("-o", "--output", type=Path, help="append rows to this JSON file")
    options = parser.parse_args()
    calibrate = enlarged(read(options.data, "train")[0][: options.images], options.side)
    held_out = enlarged(read(options.data, "t10k")[0][: options.images], options.side)
    large = network(calibrate, options.seed)
    name = MODEL
    if options.weights:
        large = parameter_files.with_parameters(large, options.weights).eval()
        name = f"ResNet-50, {options.weights.stem}"
    rows = []
    for method, chosen in METHODS.items():
        started = time.process_time()
        reporter = ConsoleReporter(Console(stderr=True))
        small = paramtrans.translate(
            large, ratio=0.5, blocks="layer*", calibrate=calibrate, reporter=reporter, **chosen
        )
        seconds = time.process_time() - started
        mean, ci95 = interval(errors(small, large, held_out))
        cost, inputs = costs(small, held_out[0]), options.images if method in CALIBRATED else 0
        metric = f"squared error of outputs on {options.images} other images, relative to their variance"
        spent = (cost["parameters"], cost["flops"], seconds)
        rows.append(Measured(name, method, inputs, 0.5, metric, mean, ci95, *spent, 0.0, options.images))
        print(json.dumps(rows[-1].as_dict()), flush=True)
    if options.output:
        append(options.output, rows)


if __name__ == "__main__":
    main()
