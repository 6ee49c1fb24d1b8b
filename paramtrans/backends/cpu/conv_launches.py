"""The sizes of a convolution with what follows it, and the launches of its conv_pieces."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from paramtrans.backends.cpu import array_kernels, conv_kernels, conv_pieces
from paramtrans.backends.cpu.arrays import flat, launch, pack, sum_parts, unpack
from paramtrans.backends.cpu.vectors import LANES
from paramtrans.backends.layout import ConvSpec

NO_CHOICE = np.empty(0, np.uint8)
NO_POOL = (0,) * 8


def fixed_affine(
    models: int,
    outputs: int,
    bias: Tensor | None,
    gamma: Tensor | None,
    beta: Tensor | None,
    mean: Tensor | None,
    variance: Tensor | None,
    spec: ConvSpec,
) -> Tensor:
    """`[group, out, 4, lane]`: mean, scale, shift and 1 / deviation of a fixed normalisation."""
    zero = torch.zeros(models, outputs)
    if mean is None or variance is None:
        columns = [zero, zero + 1, zero if bias is None else bias.detach(), zero + 1]
    else:
        inverse = torch.rsqrt(variance.double() + spec.epsilon).float()
        scale = inverse if gamma is None else inverse * gamma.detach()
        # A bias before the normalisation only moves its mean.
        middle = mean if bias is None else mean - bias.detach()
        columns = [middle, scale, zero if beta is None else beta.detach(), inverse]
    return pack(torch.stack([c.expand(models, outputs) for c in columns], -1))


class ConvLaunches:
    """The sizes of one `ConvUnit` call, and its kernels' launches."""

    def __init__(self, x: Tensor, weight: Tensor, spec: ConvSpec) -> None:
        groups, self.batch, inputs, rows, columns, _ = x.shape
        _, self.outputs, _, height, self.width = weight.shape
        if weight.shape[2] != inputs:
            raise ValueError(f"weights for {weight.shape[2]} channels, but {inputs} are given")
        top, left = spec.padding
        framed = rows + 2 * top, columns + 2 * left
        out = [(n - k) // s + 1 for n, k, s in zip(framed, (height, self.width), spec.stride, strict=True)]
        if min(out) < 1:
            raise ValueError(f"kernel {height}x{self.width} exceeds the padded input {framed}")
        self.spec, self.low = spec, 0.0 if spec.relu else -float("inf")
        self.sizes = (inputs, *framed, self.outputs, *out, height)
        self.frame = (rows, columns, top, left, spec.stride[0])
        self.items = groups * -(-self.batch // conv_pieces.CHUNK)
        self.terms = inputs * height * self.width
        self.plane = out[0] * out[1] * LANES
        self.z_shape = self.y_shape = (groups, self.batch, self.outputs, *out, LANES)
        self.pool: tuple[int, ...] = NO_POOL
        if spec.pool:
            pooled = [(n + 2 * spec.pool[4 + i] - spec.pool[i]) // spec.pool[2 + i] + 1 for i, n in enumerate(out)]
            self.pool = (*spec.pool, *pooled)
            self.y_shape = (groups, self.batch, self.outputs, *pooled, LANES)

    def convolve(
        self,
        x: Tensor,
        packed: Tensor,
        z: Tensor | None,
        moments: Tensor | None,
        affine: NDArray[Any],
        tail: tuple[Any, ...],
        ready: bool,
    ) -> None:
        """Launch the convolution; `tail` is what `conv_pieces.finish` takes where `ready`."""
        other, low, y, choice, before, batch, sizes, pool = tail
        stride = self.spec.stride[1]
        tile = conv_pieces.conv_tile(self.outputs, sizes[5], self.width, stride)
        padded = sizes[0] * sizes[1] * sizes[2] * LANES
        scratch = self.plane * (1 + self.outputs)
        launch(
            conv_kernels.conv_forward(self.width, stride, *tile),
            self.items,
            flat(x),
            flat(packed),
            flat(z),
            flat(moments),
            affine,
            other,
            low,
            y,
            choice,
            before,
            batch,
            sizes,
            self.frame,
            pool,
            z is not None,
            ready,
            scratch=(padded, scratch),
        )

    def batch_affine(
        self,
        moments: Tensor,
        models: int,
        bias: Tensor | None,
        gamma: Tensor | None,
        beta: Tensor | None,
        running_mean: Tensor | None,
        running_var: Tensor | None,
    ) -> Tensor:
        """Like fixed_affine from batch statistics; updates the running ones."""
        groups, count = moments.shape[0], self.batch * self.sizes[4] * self.sizes[5]
        mean = torch.empty(groups, self.outputs, LANES, dtype=torch.float64)
        variance = torch.empty_like(mean)
        launch(
            array_kernels.merge_moments,
            groups,
            flat(moments),
            flat(mean),
            flat(variance),
            self.batch,
            self.outputs,
            self.sizes[4] * self.sizes[5],
        )
        if running_mean is not None and running_var is not None:
            momentum = self.spec.momentum
            shift = 0 if bias is None else bias.detach()
            fair = count / (count - 1) if count > 1 else float("nan")
            running_mean.mul_(1 - momentum).add_(unpack(mean, models) + shift, alpha=momentum)
            running_var.mul_(1 - momentum).add_(unpack(variance * fair, models), alpha=momentum)
        inverse = torch.rsqrt(variance + self.spec.epsilon)
        scale = inverse if gamma is None else inverse * pack(gamma)
        shift = torch.zeros_like(mean) if beta is None else pack(beta)
        return torch.stack([mean, scale, shift, inverse], 2).float()

    def gradient_sums(self, gradient: Tensor, y: Tensor | None, z: Tensor, affine: Tensor) -> Tensor:
        """Float64 `[group, out, 2, lane]`: sums of the gradient, and of it times normalised z."""
        sums = torch.empty(self.y_shape[0] * self.batch, self.outputs, 2, LANES)
        size = self.y_shape[3] * self.y_shape[4]
        launch(
            conv_kernels.gradient_sums,
            self.items,
            flat(gradient),
            flat(y),
            self.low,
            flat(z),
            flat(affine),
            flat(sums),
            self.batch,
            self.outputs,
            size,
        )
        return sum_parts(sums, self.y_shape[0])

    def centre(self, sums: Tensor, affine: Tensor) -> Tensor:
        """`[group, out, 2, lane]`: what the batch statistics take away from the gradient."""
        means = sums / (self.batch * self.sizes[4] * self.sizes[5])
        slope = means[:, :, 1] * affine[:, :, 1].double() * affine[:, :, 3]
        return torch.stack([means[:, :, 0], slope], 2).float()

    def differentiate(
        self,
        x: Tensor,
        packed: Tensor,
        z: Tensor | None,
        affine: Tensor,
        y: Tensor | None,
        gradient: Tensor,
        choice: Tensor | None,
        centre: Tensor | None,
        other_grad: Tensor | None,
        w_grad: Tensor | None,
        b_grad: Tensor | None,
        x_grad: Tensor | None,
    ) -> None:
        """Launch the backward pass into those gradients that are given."""
        inputs, rows, columns, outputs, out_rows, out_columns, height = self.sizes
        stride, (top, left) = self.spec.stride[1], self.spec.padding
        direct = self.spec.stride == (1, 1) and top < height and left < self.width
        if self.spec.batch_statistics:
            b_grad = None  # stays zero, as batch statistics take any bias away again
        block = conv_pieces.exact_block(outputs, max(1, 24 // self.width))
        frame, turned = (0, 0), None
        if x_grad is None:
            key = (1, 1, False)
        elif direct:
            # The input gradient is a convolution of the framed gradient by turned weights.
            frame = (height - 1 - top, self.width - 1 - left)
            turned = packed.transpose(1, 2).flip(3, 4).contiguous()
            key = (*conv_pieces.conv_tile(inputs, self.frame[1], self.width, 1), False)
        else:
            key = (conv_pieces.exact_block(inputs, 3), conv_pieces.exact_block(out_columns, 7), True)
        again = z is None and centre is not None
        tile = conv_pieces.conv_tile(outputs, out_columns, self.width, stride) if again else (0, 0)
        shape = (out_rows + 2 * frame[0], out_columns + 2 * frame[1])
        start = (frame[0] * shape[1] + frame[1]) * LANES
        padded = inputs * rows * columns * LANES
        launch(
            conv_kernels.conv_backward(self.width, stride, block, *key, *tile),
            self.items,
            flat(x),
            flat(packed),
            flat(turned),
            flat(z),
            flat(affine),
            flat(y),
            self.low,
            flat(gradient),
            NO_CHOICE if choice is None else flat(choice),
            flat(centre),
            flat(other_grad),
            flat(w_grad),
            flat(b_grad),
            flat(x_grad),
            self.batch,
            self.sizes,
            self.frame,
            self.pool,
            (*shape, start),
            scratch=(
                padded,
                outputs * shape[0] * shape[1] * LANES,
                max(padded, self.plane),
                outputs * self.plane if again else 0,
            ),
        )
