"""ResNets on FashionMNIST with blocks of half the width: translated, pruned by magnitude, and pruned by torch-pruning.

Nothing is trained again, but for the upper bounds, which are fine-tuned on all labels. Takes the networks that
`fashion_resnet.py` wrote, and reports means over them.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import torch
from fashion_resnet import FOLDER, HELP, KEPT_OUT, accuracy, read, resnet, train
from measure import ALONE, CALIBRATED, Measured, Method, append, interval, matched, milliseconds
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

import paramtrans
from paramtrans.networks.blocks.finding import costs

BLOCKS = "stages.*.0"
"""The hidden channels of each block; by default channels between the stages become fewer too."""
MODEL, SIZES, BATCH, SHAPE = "ResNet-8 on FashionMNIST", (64, 512), 64, (1, 28, 28)
METHODS = CALIBRATED | matched(BATCH)
TUNING = {"epochs": 1.0, "peak": 0.1}
"""Of the upper bounds: one pass through all labelled training images, at a third of the rate of training."""
TIMED = ("refit", SIZES[0])
"""All networks of half the width have the same layers, and so take the same time: this one is timed."""
Shrink = Callable[[nn.Module, list[Tensor]], nn.Module]


def contestants(images: Tensor, labels: Tensor) -> dict[tuple[str, int, float], Shrink]:
    """What makes the smaller network, by its name, the number of images it looks at, and the width.

    `images` and `labels` are those of training, for the upper bounds alone.
    """
    # A pass shows the graph of the network also to methods that look at parameters alone; it counts as no image.
    shrinks: dict[tuple[str, int, float], Shrink] = {("the network itself", 0, 1.0): lambda network, _: network}
    shrinks |= {(name, 0, 0.5): translated(method) for name, method in ALONE.items()}
    shrinks["torch-pruning, magnitude", 0, 0.5] = torch_pruned
    shrinks["refit on smooth noise", 0, 0.5] = lambda network, _: translated({})(network, [smooth()])
    shrinks["refit on inputs made for the BatchNorms", 0, 0.5] = lambda network, _: translated({})(
        network, [paramtrans.draw_probes(network, SHAPE)]
    )
    shrinks |= {(name, size, 0.5): translated(method) for size in SIZES for name, method in METHODS.items()}
    for name, shrink in (("magnitude pruning", translated(ALONE["magnitude pruning"])), ("refit", translated({}))):
        shrinks[f"{name}, then fine-tuned on labels", len(images), 0.5] = tuned(shrink, images, labels)
    return shrinks


def translated(method: Method) -> Shrink:
    """Half the hidden channels, by a translator."""
    return lambda network, images: paramtrans.translate(network, ratio=0.5, blocks=BLOCKS, calibrate=images, **method)


def smooth() -> Tensor:
    """Random blobs for images, in [-1, 1]."""
    return 2 * paramtrans.draw_probes(nn.Identity(), SHAPE, "smooth", count=SIZES[0]) - 1


def tuned(shrink: Shrink, images: Tensor, labels: Tensor) -> Shrink:
    """The smaller network, all of it trained again on labelled images."""

    def shrunk(network: nn.Module, unlabelled: list[Tensor]) -> nn.Module:
        small = shrink(network, unlabelled[:1])
        train(small, images, labels, seed=0, **TUNING)
        return small

    return shrunk


def torch_pruned(network: nn.Module, images: list[Tensor]) -> nn.Module:
    """Half the hidden channels of every block, by torch-pruning's magnitude of coupled layers."""
    try:
        import torch_pruning
    except ImportError:
        raise SystemExit("install the rival first: pip install torch-pruning") from None

    small = deepcopy(network)
    hidden = {block.conv1 for block in small.modules() if isinstance(block, BasicBlock)}
    others = [m for m in small.modules() if isinstance(m, (nn.Conv2d, nn.Linear)) and m not in hidden]
    importance = torch_pruning.importance.GroupMagnitudeImportance(p=2)
    torch_pruning.pruner.BasePruner(small, images[0][:1], importance, pruning_ratio=0.5, ignored_layers=others).step()
    return small


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", type=Path, nargs="+", help="files that fashion_resnet.py wrote")
    parser.add_argument("--data", type=Path, default=FOLDER, help=HELP)
    parser.add_argument("--test", type=int, default=10_000, help="how many test images to report on")
    parser.add_argument("--method", action="append", help="one of the methods; all by default")
    parser.add_argument("-o", "--output", type=Path, help="append rows to this JSON file")
    options = parser.parse_args()
    images, labels = (part[: options.test] for part in read(options.data, "t10k"))
    training = read(options.data, "train")
    unseen = training[0][-KEPT_OUT:]
    networks = [loaded(path) for path in options.networks]
    whole = [accuracy(network, images, labels) for network in networks]
    mean_of = f"mean of {len(networks)} networks"
    rows = []
    for (method, size, width), shrink in contestants(*(part[:-KEPT_OUT] for part in training)).items():
        if options.method and method not in options.method:
            continue
        percents, times, waits = [], [], []
        for seed, network in enumerate(networks):
            order = torch.randperm(KEPT_OUT, generator=torch.Generator().manual_seed(seed))
            chosen = list(unseen[order[: min(size, max(SIZES)) or BATCH]].split(BATCH))
            started = time.process_time()
            small = shrink(network, chosen)
            times.append(time.process_time() - started)
            percents.append(accuracy(small, images, labels))
            if (method, size) == TIMED:
                waits.append(milliseconds([small, network], images[:BATCH]))
        measured = {f"accuracy on {len(images):,} test images, %, {mean_of}": percents}
        if width < 1:
            lost = [before - after for before, after in zip(whole, percents, strict=True)]
            measured[f"points of accuracy lost, network by network, {mean_of}"] = lost
        if waits:
            measured[f"milliseconds for {BATCH} images, {mean_of}"] = [wait for wait, _ in waits]
            measured[f"the same over that of the network itself, {mean_of}"] = [wait / before for wait, before in waits]
        cost = costs(small, images)
        spent = (cost["parameters"], cost["flops"], sum(times) / len(times) if width < 1 else None)
        for metric, values in measured.items():
            rows.append(Measured(MODEL, method, size, width, metric, *interval(values), *spent))
            print(json.dumps(rows[-1].as_dict(), ensure_ascii=False), flush=True)
    if options.output:
        append(options.output, rows)


def loaded(path: Path) -> nn.Module:
    """A trained network, in eval mode."""
    network = resnet()
    network.load_state_dict(load_file(path))
    return network.eval()


if __name__ == "__main__":
    main()
