"""A ResNet of CIFAR style on FashionMNIST: the network, its data and its training, from a folder of IDX files."""

from __future__ import annotations

import argparse
import gzip
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad
from torchvision.models.resnet import BasicBlock

HELP = "`apt-get install dataset-fashion-mnist` puts the four files into /usr/share/datasets/fashion-mnist"
FOLDER = Path("/usr/share/datasets/fashion-mnist")
EPOCHS, BATCH, PEAK = 8, 256, 0.3
KEPT_OUT = 5000
"""The last training images: no network sees them, calibration images come from there."""


class CifarResNet(nn.Module):
    """Three stages of torchvision's BasicBlocks, 16, 32 and 64 channels wide: `[batch, 1, 28, 28]` → `[batch, 10]`."""

    def __init__(self, blocks: int = 1, widths: tuple[int, ...] = (16, 32, 64), classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, widths[0], 3, padding=1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU()
        )
        stages = []
        for inputs, outputs in zip((widths[0], *widths), widths, strict=False):
            strides = [1 if inputs == outputs else 2] + [1] * (blocks - 1)
            widened = [inputs] + [outputs] * (blocks - 1)
            stages.append(nn.Sequential(*(_block(w, outputs, s) for w, s in zip(widened, strides, strict=True))))
        self.stages = nn.Sequential(*stages)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], classes))

    def forward(self, images: Tensor) -> Tensor:
        outputs: Tensor = self.head(self.stages(self.stem(images)))
        return outputs


def resnet() -> nn.Module:
    """The factory that `paramtrans translate --arch` names."""
    return CifarResNet()


def read(folder: Path, name: str) -> tuple[Tensor, Tensor]:
    """Images `[n, 1, 28, 28]` in [-1, 1] and labels `[n]` of `train` or `t10k`."""
    arrays = []
    for what, header, kind in (("images", 16, "idx3"), ("labels", 8, "idx1")):
        path = folder / f"{name}-{what}-{kind}-ubyte.gz"
        if not path.is_file():
            raise SystemExit(f"{path}: no such file; {HELP}")
        with gzip.open(path) as file:
            arrays.append(torch.frombuffer(bytearray(file.read()[header:]), dtype=torch.uint8))
    images, labels = arrays
    return images.view(-1, 1, 28, 28).float() / 127.5 - 1, labels.long()


def train(
    network: nn.Module, images: Tensor, labels: Tensor, seed: int, epochs: float = EPOCHS, peak: float = PEAK
) -> None:
    """One cycle of SGD with flips and shifts; leaves the network in eval mode."""
    generator = torch.Generator().manual_seed(seed)
    network.train().to(memory_format=torch.channels_last)
    optimiser = torch.optim.SGD(network.parameters(), lr=peak, momentum=0.9, weight_decay=5e-4, nesterov=True)
    per_epoch = len(images) // BATCH
    steps = int(epochs * per_epoch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, peak, total_steps=steps, pct_start=0.3)
    order = torch.empty(0, dtype=torch.long)
    for _ in range(steps):
        if len(order) < BATCH:
            order = torch.randperm(len(images), generator=generator)
        chosen, order = order[:BATCH], order[BATCH:]
        batch = augmented(images[chosen], generator).contiguous(memory_format=torch.channels_last)
        loss = cross_entropy(network(batch), labels[chosen], label_smoothing=0.1)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    network.eval().to(memory_format=torch.contiguous_format)


def augmented(images: Tensor, generator: torch.Generator) -> Tensor:
    """Half of the images flipped, all shifted by up to two pixels."""
    flip = torch.rand(len(images), generator=generator) < 0.5
    images = torch.where(flip[:, None, None, None], images.flip(-1), images)
    down, right = torch.randint(0, 5, (2,), generator=generator).tolist()
    return pad(images, (2, 2, 2, 2), value=-1)[..., down : down + 28, right : right + 28]


@torch.no_grad()
def accuracy(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Percent right."""
    answers = [network(part).argmax(1) for part in images.split(100)]
    return 100 * (torch.cat(answers) == labels).double().mean().item()


def _block(inputs: int, outputs: int, stride: int) -> BasicBlock:
    changes = stride != 1 or inputs != outputs
    down = (
        nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)) if changes else None
    )
    return BasicBlock(inputs, outputs, stride, down)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=FOLDER, help=HELP)
    parser.add_argument("--seed", type=int, default=0, help="of the first parameters, the order and the shifts")
    parser.add_argument("--epochs", type=float, default=EPOCHS, help="passes through the training images")
    parser.add_argument("-o", "--output", type=Path, required=True, help="where the parameters go (safetensors)")
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    network = resnet()
    started = time.monotonic()
    images, labels = (part[:-KEPT_OUT] for part in read(options.data, "train"))
    train(network, images, labels, options.seed, options.epochs)
    seconds = time.monotonic() - started
    percent = accuracy(network, *read(options.data, "t10k"))
    print(f"seed {options.seed}: {percent:.2f}% on the test images, {seconds:.0f} s")
    save_file(network.state_dict(), options.output)


if __name__ == "__main__":
    main()
