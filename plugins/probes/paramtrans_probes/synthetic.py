"""Probes made without a network or an image: noise, smooth fields, strokes of a pen; values in [0, 1]."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Generator, Tensor
from torch.nn.functional import interpolate

from paramtrans.api.options import BaseOptions
from paramtrans.api.probes import ProbeCase, ProbeOptions, Probes
from paramtrans.errors import SpecMismatch


class Noise(Probes):
    """Uniform in [0, 1], each value by itself."""

    def draw(self, case: ProbeCase) -> Tensor:
        return torch.rand(self.options.count, *case.shape, generator=case.generator)


class SmoothOptions(ProbeOptions):
    """How smooth."""

    blobs: PositiveInt = Field(7, ge=2)
    """Random values along each side; between them the field is interpolated."""


class Smooth(Probes):
    """Random values on a coarse grid, interpolated and cut off to [0, 1], so that about half of each input is empty."""

    Options: ClassVar[type[BaseOptions]] = SmoothOptions
    options: SmoothOptions

    def draw(self, case: ProbeCase) -> Tensor:
        channels, height, width = image_shape(case)
        coarse = torch.randn(self.options.count, channels, *[self.options.blobs] * 2, generator=case.generator)
        return interpolate(coarse, (height, width), mode="bicubic", align_corners=True).clamp(0, 1)


class StrokesOptions(ProbeOptions):
    """What is drawn. Lengths are shares of the image's shorter side."""

    strokes: PositiveInt = 3
    """Strokes in an image, at most."""
    width: PositiveFloat = 0.09
    """Mean width of the pen."""
    margin: float = Field(0.15, ge=0, lt=0.5)
    """Empty border in which no stroke has its corners."""
    chained: bool = False
    """Whether each stroke begins where the one before ended, as in handwriting."""
    centred: bool = False
    """Whether what was drawn is moved so that its centre of mass is the image's, as handwritten digits often are."""


class Strokes(Probes):
    """White strokes of a pen on black: each a smooth curve (a cubic Bézier) between random corners."""

    Options: ClassVar[type[BaseOptions]] = StrokesOptions
    options: StrokesOptions

    def draw(self, case: ProbeCase) -> Tensor:
        channels, height, width = image_shape(case)
        images = [self._image(height, width, case.generator) for _ in range(self.options.count)]
        return torch.stack(images).unsqueeze(1).expand(-1, channels, -1, -1).contiguous()

    def _image(self, height: int, width: int, generator: Generator) -> Tensor:
        """One image, `[height, width]`: as bright as the nearest point of any stroke is near."""
        options, side = self.options, min(height, width)
        count = int(torch.randint(1, options.strokes + 1, (), generator=generator))
        radius = 0.5 * options.width * side * (0.6 + 0.8 * torch.rand((), generator=generator))
        corners = options.margin + (1 - 2 * options.margin) * torch.rand(count, 4, 2, generator=generator)
        if options.chained:
            corners[1:, 0] = corners[:-1, 3]
        curves = bezier(corners, 2 * side)
        if options.centred:
            curves = curves + 0.5 - curves.mean((0, 1))
        points = (curves * torch.tensor([height - 1.0, width - 1.0])).flatten(0, 1)
        rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        pixels = torch.stack([rows, columns], dim=-1).flatten(0, 1).float()
        distance = torch.cdist(pixels, points).amin(1).view(height, width)
        return (radius + 0.5 - distance).clamp(0, 1)


def bezier(corners: Tensor, steps: int) -> Tensor:
    """Points of cubic Bézier curves: `[curves, 4, 2]` → `[curves, steps, 2]`."""
    t = torch.linspace(0, 1, steps)
    weights = torch.stack([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3], dim=1)
    return weights @ corners


def image_shape(case: ProbeCase) -> tuple[int, int, int]:
    """Channels, height and width of a network input; raises `SpecMismatch` where it is no image."""
    if len(case.shape) != 3:
        raise SpecMismatch(f"these probes are images; the network takes inputs of shape {list(case.shape)}, try noise")
    channels, height, width = case.shape
    return channels, height, width
