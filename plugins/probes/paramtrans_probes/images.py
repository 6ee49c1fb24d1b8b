"""Probes that are the user's: images of the task, without their labels."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from paramtrans.api.probes import ProbeCase, Probes
from paramtrans.errors import SpecMismatch


class Images(Probes):
    """`count` different training images, drawn at random; all of them where there are fewer."""

    real: ClassVar[bool] = True

    def draw(self, case: ProbeCase) -> Tensor:
        if case.task is None:
            raise SpecMismatch(
                "images are drawn from a task's training images; without one, give the inputs themselves"
            )
        images = case.task.split("train").inputs
        chosen = torch.randperm(len(images), generator=case.generator)[: self.options.count]
        return case.task.to_input(images[chosen])
