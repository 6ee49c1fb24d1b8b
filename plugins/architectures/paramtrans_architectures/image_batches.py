"""Images as inputs of networks that take one tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from paramtrans.errors import ConfigError
from paramtrans.networks.loading.calibration import in_groups


def check(name: str, kind: str, length: int | None) -> None:
    """Raise `ConfigError` for other examples, and for a length, which images do not have."""
    if kind != "images":
        raise ConfigError([f"{name}: takes images, no {kind}"])
    if length is not None:
        raise ConfigError([f"{name}: --length is for texts and recordings, not for images"])


def prepare_batches(prepare: Callable[[Any], Tensor], examples: Iterable[Any], count: int) -> Sequence[Tensor]:
    """Batches of images `[n, channels, height, width]`; none of fewer than two images.

    Args:
        prepare: Makes a tensor `[channels, height, width]` of an image.
        examples: Images.
        count: Images, at most.
    """
    batches = [torch.stack([*map(prepare, group)]) for group in in_groups(islice(examples, count))]
    return batches if sum(map(len, batches)) > 1 else []
