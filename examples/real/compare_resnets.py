"""ResNets on FashionMNIST with blocks of half the width: translated, pruned by magnitude, and pruned by torch-pruning.

Nothing is trained again. Takes the networks that `fashion_resnet.py` wrote, and reports means over them.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import torch
from fashion_resnet import FOLDER, HELP, KEPT_OUT, accuracy, read, resnet
from measure import MAGNITUDE, REFITS, Measured, append, interval
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

import paramtrans
from paramtrans.network import costs

MODEL, SIZES, BATCH = "ResNet-8 on FashionMNIST", (64, 512), 64
Shrink = Callable[[nn.Module, list[Tensor]], nn.Module]


def contestants() -> dict[tuple[str, int, float], Shrink]:
    """What makes the smaller network, by its name, the number of unlabelled images it looks at, and the width."""
    # A pass through the network finds the blocks also for methods that look at parameters alone; it counts as no image.
    made: dict[tuple[str, int, float], Shrink] = {("the network itself", 0, 1.0): lambda network, _: network}
    made |= {(name, 0, 0.5): translated(*method) for name, method in MAGNITUDE.items()}
    made["torch-pruning, magnitude", 0, 0.5] = torch_pruned
    made |= {(name, size, 0.5): translated(*method) for size in SIZES for name, method in REFITS.items()}
    return made


def translated(translator: str, options: dict[str, object]) -> Shrink:
    """Half the hidden channels, by a translator."""
    return lambda network, images: paramtrans.translate(
        network, translator, ratio=0.5, calibrate=images, options=options
    )


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
    parser.add_argument("-o", "--output", type=Path, help="append rows to this JSON file")
    options = parser.parse_args()
    images, labels = (part[: options.test] for part in read(options.data, "t10k"))
    unseen = read(options.data, "train")[0][-KEPT_OUT:]
    networks = [loaded(path) for path in options.networks]
    rows = []
    for (method, size, width), shrink in contestants().items():
        percents, times = [], []
        for seed, network in enumerate(networks):
            order = torch.randperm(KEPT_OUT, generator=torch.Generator().manual_seed(seed))
            chosen = list(unseen[order[: size or BATCH]].split(BATCH))
            started = time.monotonic()
            small = shrink(network, chosen)
            times.append(time.monotonic() - started)
            percents.append(accuracy(small, images, labels))
        mean, ci95 = interval(percents)
        cost = costs(small, images)
        seconds = sum(times) / len(times) if width < 1 else None
        metric = f"accuracy on {len(images):,} test images, %, mean of {len(networks)} networks"
        rows.append(
            Measured(MODEL, method, size, width, metric, mean, ci95, cost["parameters"], cost["flops"], seconds)
        )
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
