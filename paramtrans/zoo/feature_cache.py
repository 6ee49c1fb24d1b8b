"""What a frozen former makes of the training images, kept through step 2 where that saves time and memory allows."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from paramtrans.api.stacking import Params, models
from paramtrans.api.task import Split, Task
from paramtrans.backends.vmap import stacked
from paramtrans.utils import memory

LEAST = 3
"""How often each image must be used, in each of its variants, to be kept. Making features costs one use."""
PIECE = 256
"""Images that go through the former at once."""


class Features:
    """What enters the slot of each host for every training image, in each variant that the task draws."""

    def __init__(self, rows: Tensor, images: int, hosts: int) -> None:
        self.rows, self.images = rows, images
        """Host by host, variant by variant, image by image: `[hosts * variants * images, *slot]`."""
        self.starts = torch.arange(hosts)[:, None] * (len(rows) // hosts)

    def take(self, chosen: Tensor, drawn: Tensor) -> Tensor:
        """Of the images `chosen`, `[hosts, batch]`, in the variants drawn: `[hosts, batch, *slot]`."""
        index = self.starts + chosen + (drawn * self.images if drawn.numel() else 0)
        return self.rows.index_select(0, index.flatten()).view(*index.shape, *self.rows.shape[1:])


@torch.no_grad()
def keep(task: Task, split: Split, former: Params, uses: int) -> Features | None:
    """The features of hosts on the CPU, for all training images in all variants that the task draws.

    Args:
        task: It says how images are augmented and made inputs of.
        split: The images.
        former: Stacked former blocks, each `[hosts, *shape]`.
        uses: How often each image is used, all in all.

    Returns:
        None where they are made anew each time: used too seldom, changed in ever new ways, or too many for the memory
        there is.
    """
    variants, count, shape = _variants(task), len(split), task.slot.shape
    if variants is None or uses < LEAST * variants * count or any(t.device.type != "cpu" for t in former.values()):
        return None
    hosts = models(former)
    length = hosts * variants * count
    if 4 * length * math.prod(shape) > memory.spare():
        return None
    try:
        rows = torch.empty(hosts, variants, count, *shape)
    except RuntimeError:  # a limit of this process alone
        return None
    run = stacked(task.former())
    for variant in range(variants):
        for start in range(0, count, PIECE):
            raw = split.inputs[start : start + PIECE]
            changed = task.augmented(raw, torch.full((len(raw),), bool(variant))) if variants > 1 else raw
            inputs = task.to_input(changed)
            rows[:, variant, start : start + len(raw)] = run(former, inputs.expand(hosts, *inputs.shape))
    return Features(rows.view(length, *shape), count, hosts)


def _variants(task: Task) -> int | None:
    """How many ways there are to augment an image: one where nothing is drawn, two for yes or no; None for others."""
    if type(task).augment is not Task.augment:
        return None
    drawn = task.draws(1, torch.Generator())
    if drawn.numel() == 0:
        return 1
    return 2 if drawn.dtype == torch.bool and drawn.ndim == 1 else None
