"""Small convolutional hosts for 28×28 grey images in ten classes (KT, section 4.1), on four data sets."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import (
    Field,
    NonNegativeInt,
    PositiveInt,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
)
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate

from paramtrans.api.options import BaseOptions, Trials
from paramtrans.api.specs import FeatureSpec
from paramtrans.api.task import Split, Task
from paramtrans.errors import DataError
from paramtrans.utils.counts import counted
from paramtrans_mnist import shipped

SIDE, CLASSES = 28, 10
TEST_DIGITS = 500
"""Of the 1,797 shipped digits."""


class ImageOptions(BaseOptions):
    """Sizes of the host, and what is done with the images."""

    channels: PositiveInt = 6
    """Channels of the slot's features."""
    out: PositiveInt | None = None
    """Channels of what leaves the slot, at half of the rows and columns; by default it leaves as it enters."""
    latter_channels: PositiveInt = 12
    """Channels of the latter's convolution."""
    holdout: NonNegativeInt = 5000
    """Training images kept out of training, for selection."""
    share: float | None = Field(None, gt=0, le=1)
    """The share of the training images that hosts are trained on, the first ones; all of them by default."""
    flip: bool = False
    """Mirror each training image with probability 1/2. The paper does, digits or not."""
    root: str | None = None
    """A folder with your own copy of the data set, laid out as torchvision does; never written to."""

    @model_serializer(mode="wrap")
    def _as_before(self, whole: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Zoos keep the names they had when there was no `share` and no `out`."""
        values: dict[str, Any] = whole(self)
        return {key: value for key, value in values.items() if value is not None or key not in ("share", "out")}


class GreyImages(Task):
    """Former: conv, BatchNorm, ReLU, max pooling. Latter: strided 1×1 conv, BatchNorm, ReLU, linear."""

    Options: ClassVar[type[BaseOptions]] = ImageOptions
    options: ImageOptions
    metric = "accuracy"

    def __init__(self, options: ImageOptions) -> None:
        super().__init__(options)
        self.slot = FeatureSpec(options.channels, SIDE // 2, SIDE // 2)
        self._splits: dict[str, Split] = {}

    def leaving(self) -> FeatureSpec:
        return self.slot if self.options.out is None else FeatureSpec(self.options.out, SIDE // 4, SIDE // 4)

    def former(self) -> nn.Module:
        channels = self.options.channels
        return nn.Sequential(
            nn.Conv2d(1, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2, padding=1),
        )

    def latter(self) -> nn.Module:
        channels = self.options.latter_channels
        return nn.Sequential(
            nn.Conv2d(self.leaving().channels, channels, 1, stride=self.leaving().shape[1] * 4 // SIDE, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(channels * (SIDE // 4) ** 2, CLASSES),
        )

    def stream(self) -> dict[str, int]:
        norm = {f"former.1.{name}": 0 for name in ("weight", "bias", "running_mean", "running_var")}
        after = {"latter.0.weight": 1} if self.options.out is None else {}  # other channels leave the slot
        return {"former.0.weight": 0, **norm, **after}

    def prepare(self, cache: Path) -> None:
        train, test = self.read(cache)
        whole = len(train) - self.options.holdout
        if whole < 1:
            raise DataError(
                f"task.holdout: {self.options.holdout} leaves nothing of {counted(len(train), 'training image')}"
            )
        kept = max(1, round(whole * (self.options.share or 1)))
        self._splits = {
            "train": Split(train.inputs[:kept], train.labels[:kept]),
            # Without a held-out part, selection falls back on training images, never on the test images.
            "holdout": Split(train.inputs[whole:], train.labels[whole:]) if self.options.holdout else train,
            "test": test,
        }

    @abstractmethod
    def read(self, cache: Path) -> tuple[Split, Split]:
        """Training and test images, `[n, 28, 28]` bytes, with labels; raises `DataError`."""

    def split(self, name: str) -> Split:
        return self._splits[name]

    def to_input(self, raw: Tensor) -> Tensor:
        """`[..., 28, 28]` bytes → `[..., 1, 28, 28]` in [0, 1], not normalised."""
        return raw.unsqueeze(-3).float() / 255

    def draws(self, count: int, generator: torch.Generator) -> Tensor:
        """Whether each image is mirrored."""
        if not self.options.flip:
            return super().draws(count, generator)
        return torch.rand(count, generator=generator) < 0.5

    def augmented(self, raw: Tensor, drawn: Tensor) -> Tensor:
        return torch.where(drawn[..., None, None], raw.flip(-1), raw) if self.options.flip else raw

    def loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return cross_entropy(outputs.flatten(0, 1), labels.flatten(), reduction="none").view(labels.shape).mean(1)


class MNIST(GreyImages):
    """60,000 and 10,000 handwritten digits, shipped with this plugin."""

    trials: ClassVar[Trials] = ({}, {"flip": True}, {"out": 12})

    def read(self, cache: Path) -> tuple[Split, Split]:
        from torchvision.datasets import MNIST as Data

        root = Path(self.options.root) if self.options.root else shipped.extract(cache / "data")
        shipped.check(root)
        return _grey(Data(str(root), train=True)), _grey(Data(str(root), train=False))


class DigitsOptions(ImageOptions):
    """As for the others; the data are always the shipped ones."""

    holdout: NonNegativeInt = 197
    """Training images kept out of training, for selection."""

    @field_validator("root")
    @classmethod
    def _shipped(cls, root: str | None) -> str | None:
        if root is not None:
            raise ValueError("these digits are shipped; leave it out")
        return root


class Digits(GreyImages):
    """1,297 and 500 handwritten digits of another origin, 8×8 with 17 greys, enlarged to 28×28; shipped.

    Writers stand together in the file, so the last 500 are largely of other people than the ones before.
    """

    Options: ClassVar[type[BaseOptions]] = DigitsOptions

    def read(self, cache: Path) -> tuple[Split, Split]:
        images, labels = shipped.digits()
        whole = Split(enlarged(images.float() * (255 / 16)), labels)
        cut = len(whole) - TEST_DIGITS
        return Split(whole.inputs[:cut], whole.labels[:cut]), Split(whole.inputs[cut:], whole.labels[cut:])


class FashionMNIST(GreyImages):
    """60,000 and 10,000 articles of clothing, downloaded on first use."""

    trials: ClassVar[Trials] = ()

    def read(self, cache: Path) -> tuple[Split, Split]:
        from torchvision.datasets import FashionMNIST as Data

        return _download(Data, self.options.root, cache, "FashionMNIST")


class USPS(GreyImages):
    """7,291 and 2,007 handwritten digits of 16×16, enlarged to 28×28, downloaded on first use."""

    trials: ClassVar[Trials] = ()

    def read(self, cache: Path) -> tuple[Split, Split]:
        from torchvision.datasets import USPS as Data

        return _download(Data, self.options.root, cache, "USPS")


def _download(data: type, root: str | None, cache: Path, name: str) -> tuple[Split, Split]:
    """Both halves of a data set that torchvision fetches where there is a network."""
    folder = Path(root) if root else cache / "data"
    try:
        train, test = (data(str(folder), train=train, download=root is None) for train in (True, False))
    except Exception as error:  # torchvision and urllib raise many kinds
        hint = (
            "set task.root to the folder above your copy"
            if root is None
            else "task.root is not laid out as torchvision does"
        )
        reason = " ".join(str(error).split())
        raise DataError(f"{name}: not found in {folder} and cannot be downloaded ({reason}); {hint}") from error
    return _grey(train), _grey(test)


def _grey(dataset: object) -> Split:
    """A torchvision data set as bytes `[n, 28, 28]` and labels."""
    images = torch.as_tensor(dataset.data)  # type: ignore[attr-defined]
    if images.shape[-2:] != (SIDE, SIDE):
        images = enlarged(images.float())
    return Split(images, torch.as_tensor(dataset.targets))  # type: ignore[attr-defined]


def enlarged(images: Tensor) -> Tensor:
    """`[n, h, w]` greys from 0 to 255 → bytes `[n, 28, 28]`."""
    resized = interpolate(images[:, None], (SIDE, SIDE), mode="bilinear", antialias=True)
    return resized[:, 0].round().to(torch.uint8)
