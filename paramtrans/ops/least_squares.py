"""Least squares in closed form: Gram matrices of what a layer reads and should give, and the ridge regression on them.

All in double precision; their size does not grow with the number of examples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn

from paramtrans.errors import SpecMismatch
from paramtrans.ops.rows import positions, rows

View: TypeAlias = "Callable[[GramMatrices], GramMatrices]"

ROWS_AT_ONCE = 4096
"""Rows whose products are added up in single precision."""
RIDGES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 1e2)
"""What is tried where the ridge is chosen on held-out probes."""
ALONE = 10.0
"""Ridge for each value that is read for each row, where one example alone leaves nothing to choose it on: neighbouring
rows say nearly the same."""
MANY_VALUES = 1024
"""Values read from which on every other ridge is tried alone."""
OUTPUTS_TRIED = 64
"""Outputs that it is tried on, evenly spread, so that the choice does not cost more than the solution."""


@dataclass(frozen=True)
class GramMatrices:
    """Second-moment statistics, sums of products over rows; `of` adds a constant one as the last value read."""

    gram: Tensor
    """Read with read: `[models, values, values]`."""
    cross: Tensor
    """Read with wanted: `[models, values, outputs]`."""
    power: Tensor
    """Each wanted output with itself: `[models, outputs]`."""

    @classmethod
    def of(cls, read: Tensor, wanted: Tensor) -> GramMatrices:
        """Of rows of numbers.

        Args:
            read: What the layer reads, `[models, rows, values]`.
            wanted: What it should give, `[models, rows, outputs]`.
        """
        read, wanted = read.double(), wanted.double()
        read = torch.cat([read, torch.ones_like(read[..., :1])], dim=-1)
        return cls(read.mT @ read, read.mT @ wanted, wanted.square().sum(1))

    @classmethod
    def summed(cls, read: Tensor, wanted: Tensor) -> GramMatrices:
        """The same of many rows of one model: products of pieces of rows in single precision, their sums in double.

        Args:
            read: `[rows, values]`.
            wanted: `[rows, outputs]`.
        """
        size, outputs = read.shape[1] + 1, wanted.shape[1]
        sums = cls(
            *(read.new_zeros(shape, dtype=torch.double) for shape in ((size, size), (size, outputs), (outputs,)))
        )
        read = torch.cat([read, torch.ones_like(read[:, :1])], dim=1)
        for read_rows, wanted_rows in zip(read.split(ROWS_AT_ONCE), wanted.split(ROWS_AT_ONCE), strict=True):
            sums.gram.add_(read_rows.mT @ read_rows)
            sums.cross.add_(read_rows.mT @ wanted_rows)
            sums.power.add_(wanted_rows.square().sum(0))
        return cls(sums.gram[None], sums.cross[None], sums.power[None])

    def without(self, others: Tensor, values: Tensor) -> GramMatrices:
        """Of some of the values read, once all that others can say is taken out.

        The Schur complement G_vv - G_vo G_oo⁻¹ G_ov, which is the inverse of the block of G⁻¹ by which Optimal Brain
        Surgeon weighs values (Hassibi and Stork, 1992, Eq. 5).

        Args:
            others: Numbers of the values that are taken out, `[n]`.
            values: Numbers of those that are kept, `[m]`.

        Returns:
            Of the `m` values kept.
        """
        if not len(others):
            return GramMatrices(self.gram[:, values][:, :, values], self.cross[:, values], self.power)
        among = self.gram[:, others][:, :, others]
        pull = 1e-4 * among.diagonal(dim1=1, dim2=2) + 1e-12
        across = self.gram[:, others][:, :, values]
        root = factor(among, pull)
        solved = torch.cholesky_solve(torch.cat([across, self.cross[:, others]], dim=2), root)
        left, said = solved[..., : len(values)], solved[..., len(values) :]
        return GramMatrices(
            self.gram[:, values][:, :, values] - across.mT @ left,
            self.cross[:, values] - across.mT @ said,
            (self.power - (self.cross[:, others] * said).sum(1)).clamp_min(0),
        )

    def __add__(self, other: GramMatrices) -> GramMatrices:
        return GramMatrices(self.gram + other.gram, self.cross + other.cross, self.power + other.power)

    def centred(self) -> GramMatrices:
        """With all means taken out, and so without the constant: for a layer that has a bias."""
        count = self.gram[:, -1:, -1:]
        mean = self.gram[:, :-1, -1:] / count
        return GramMatrices(
            self.gram[:, :-1, :-1] - mean * self.gram[:, -1:, :-1],
            self.cross[:, :-1] - mean * self.cross[:, -1:],
            self.power - self.cross[:, -1].square() / count[:, 0],
        )

    def whole(self) -> GramMatrices:
        """With the constant, whose weights are the bias: for a layer that has one."""
        return self

    def plain(self) -> GramMatrices:
        """Without the constant: for a layer that has no bias."""
        return GramMatrices(self.gram[:, :-1, :-1], self.cross[:, :-1], self.power)

    def values(self, chosen: Tensor) -> GramMatrices:
        """Some of the values read alone."""
        return GramMatrices(self.gram[:, chosen][:, :, chosen], self.cross[:, chosen], self.power)

    def some_outputs(self, step: int) -> GramMatrices:
        """Every `step`-th output alone."""
        return GramMatrices(self.gram, self.cross[..., ::step], self.power[:, ::step])

    def error(self, weights: Tensor, scale: Tensor) -> Tensor:
        """Squared error of weights on the rows, each output relative to a scale.

        Args:
            weights: `[models, values, outputs]`.
            scale: `[models, outputs]`.

        Returns:
            `[models]`.
        """
        left = (weights * (self.gram @ weights - 2 * self.cross)).sum(1) + self.power
        return (left / scale).sum(1)

    def penalty(self) -> Tensor:
        """What a ridge of one adds to the diagonal: each value's mean square, a little of the mean for dead ones."""
        diagonal = self.gram.diagonal(dim1=1, dim2=2)
        return (diagonal + 1e-6 * diagonal.mean(1, keepdim=True)).clamp_min(1e-12)

    def ridge(self, start: Tensor, strength: Tensor) -> Tensor:
        """Weights of least squared error, pulled towards a start: ridge regression (Hoerl and Kennard, 1970).

        With G the Gram matrix, C the products with what is wanted, W₀ the start and D = strength · diag(G), they are
        W = W₀ + (G + D)⁻¹ (C - G W₀). As the pull is relative to the mean square of each value, the constant's too,
        rescaling hidden units changes nothing: as if examples more, `strength` times as many, had shown values that are
        independent.

        Args:
            start: W₀, `[models, values, outputs]`.
            strength: `[models]`.

        Returns:
            W, `[models, values, outputs]`.

        Raises:
            SpecMismatch: the numbers are not finite.
        """
        # Without any ridge two equal units would make the equations singular.
        pull = self.penalty() * strength.clamp_min(1e-9)[:, None]
        return start + torch.cholesky_solve(self.cross - self.gram @ start, factor(self.gram, pull))


def factor(gram: Tensor, pull: Tensor) -> Tensor:
    """Cholesky factor of a Gram matrix, more of the ridge where rounding needs it.

    Args:
        gram: `[models, values, values]`.
        pull: What is added to the diagonal, `[models, values]`.

    Returns:
        The lower factor, `[models, values, values]`.

    Raises:
        SpecMismatch: the numbers are not finite.
    """
    if not gram.isfinite().all():
        raise SpecMismatch("what blocks compute on these probes is not finite; look at the inputs and the network")
    while True:
        root: Tensor
        root, failed = torch.linalg.cholesky_ex(gram + torch.diag_embed(pull))
        if not failed.any():
            return root
        pull = torch.where(failed[:, None] > 0, 10 * pull, pull)


class Halves:
    """Gram matrices of every other example apart, so that a fit on one half can be judged on the other."""

    def __init__(self, total: int = 0) -> None:
        """`total`: how many examples will be added; of many, some positions are enough. 0 takes all positions."""
        self._total = total
        self._halves: list[GramMatrices] = []
        self._examples = 0

    def add(self, layer: nn.Module, entered: Tensor, wanted: Tensor) -> None:
        """Further examples.

        Args:
            layer: The Linear or convolution that is solved for.
            entered: What enters it, `[models, n, ...]`.
            wanted: What should leave it, of that shape.
        """
        for half in range(2):
            # Whole examples, because neighbouring positions of one say nearly the same.
            read_by, due_of = (tensor[:, (half + self._examples) % 2 :: 2] for tensor in (entered, wanted))
            most, seed = positions(layer, self._total), 2 * self._examples + half
            for read, due in rows(layer, read_by, due_of, most, seed) if read_by.shape[1] else ():
                self._add(half, GramMatrices.of(read, due))
        self._examples += entered.shape[1]

    @property
    def examples(self) -> int:
        """How many examples were added by `add`."""
        return self._examples

    @property
    def has_rows(self) -> bool:
        """Whether there is anything."""
        return bool(self._halves)

    @property
    def two(self) -> bool:
        """Whether there are both halves."""
        return len(self._halves) == 2

    @property
    def halves(self) -> list[GramMatrices]:
        """Each half apart."""
        return self._halves

    def add_rows(self, half: int, read: Tensor, wanted: Tensor) -> None:
        """Rows `[rows, values]` and `[rows, outputs]` of one model, for one of the halves."""
        self._add(min(half, len(self._halves)), GramMatrices.summed(read, wanted))

    def total(self) -> GramMatrices:
        """Of all examples; raises `SpecMismatch` where there were none."""
        if not self._halves:
            raise SpecMismatch("there are no probes to compare blocks on; give at least one")
        return self._halves[0] if len(self._halves) == 1 else self._halves[0] + self._halves[1]

    def ridge(self, view: View, start: Tensor) -> Tensor:
        """The strength among `RIDGES` that does best on the half it was not fitted on (two-fold cross-validation).

        Args:
            view: How the Gram matrices are to be seen: centred, or plain.
            start: The weights that are pulled towards, `[models, values, outputs]`.

        Returns:
            `[models]`.
        """
        if len(self._halves) < 2:
            rows_of_one: Tensor = self._halves[0].gram[:, -1, -1]
            return ALONE * start.shape[1] / rows_of_one
        step = -(-start.shape[2] // OUTPUTS_TRIED)
        spread = self.total().centred().power[:, ::step]
        scale = spread + 1e-6 * spread.mean(1, keepdim=True) + 1e-30
        first, second = (view(half).some_outputs(step) for half in self._halves)
        start = start[..., ::step]
        errors, tried = [], RIDGES if start.shape[1] <= MANY_VALUES else RIDGES[::2]
        for strength in tried:
            strengths = start.new_full((len(start),), strength)
            on_second = second.error(first.ridge(start, strengths), scale)
            errors.append(on_second + first.error(second.ridge(start, strengths), scale))
        best = torch.stack(errors).argmin(0)
        return torch.tensor(tried, dtype=start.dtype, device=start.device)[best]

    def _add(self, half: int, matrices: GramMatrices) -> None:
        if half < len(self._halves):
            self._halves[half] += matrices
        else:
            self._halves.append(matrices)
