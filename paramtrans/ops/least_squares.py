"""Least squares in closed form: Gram matrices of what a layer reads and should give, and the ridge regression on them.

Sums and solutions are in double precision; their size does not grow with the number of examples.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from paramtrans.errors import SpecMismatch

COLUMNS_AT_ONCE = 256
"""Columns of a product of rows with themselves that are computed together, at least."""


def squared(rows: Tensor) -> Tensor:
    """RᵀR, of which what is above the diagonal is computed once, block by block.

    Args:
        rows: R, `[rows, values]`.

    Returns:
        `[values, values]`, in the precision of the rows.
    """
    values = rows.shape[1]
    product, size = rows.new_empty(values, values), max(-(-values // 4), COLUMNS_AT_ONCE)
    for start in range(0, values, size):
        end = start + size
        product[start:end, start:] = rows[:, start:end].mT @ rows[:, start:]
        product[end:, start:end] = product[start:end, end:].mT
    return product


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

    @property
    def size(self) -> int:
        """Values read, with the constant."""
        return self.gram.shape[1]

    @property
    def count(self) -> Tensor:
        """How many rows there were, by their weights: `[models]`."""
        return self.gram[:, -1, -1]

    def gram_matrices(self, rounded: bool = False) -> GramMatrices:
        """Itself."""
        return self

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
            return self.values(values)
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
            torch.baddbmm(self.gram[:, :-1, :-1], mean, self.gram[:, -1:, :-1], alpha=-1),
            torch.baddbmm(self.cross[:, :-1], mean, self.cross[:, -1:], alpha=-1),
            self.spread(),
        )

    def spread(self) -> Tensor:
        """Sum of squares of each wanted output with its mean taken out: `[models, outputs]`."""
        return self.power - self.cross[:, -1].square() / self.gram[:, -1, -1:]

    def whole(self) -> GramMatrices:
        """With the constant, whose weights are the bias: for a layer that has one."""
        return self

    def plain(self) -> GramMatrices:
        """Without the constant: for a layer that has no bias."""
        return GramMatrices(self.gram[:, :-1, :-1], self.cross[:, :-1], self.power)

    def values(self, chosen: Tensor) -> GramMatrices:
        """Some of the values read alone."""
        if torch.equal(chosen, torch.arange(self.gram.shape[1], device=chosen.device)):
            return self
        return GramMatrices(self.gram[:, chosen][:, :, chosen], self.cross[:, chosen], self.power)

    def some_outputs(self, step: int) -> GramMatrices:
        """Every `step`-th output alone."""
        return replace(self, cross=self.cross[..., ::step], power=self.power[:, ::step])

    def scaled(self, gain: Tensor) -> GramMatrices:
        """With each wanted output times a number, `[outputs]` or `[models, 1, outputs]`."""
        return GramMatrices(self.gram, self.cross * gain, self.power * gain.square().view(-1, self.power.shape[1]))

    def combined(self, basis: Tensor) -> GramMatrices:
        """Of combinations of each unit's values, `[units, values of a unit, combinations]`; values run unit by unit."""
        units, size, rank = basis.shape
        gram = self.gram.view(-1, units, size, units, size)
        left_projected = torch.einsum("muavb,uar->murvb", gram, basis)
        projected = torch.einsum("murvb,vbs->murvs", left_projected, basis).reshape(-1, units * rank, units * rank)
        cross = torch.einsum("muao,uar->muro", self.cross.unflatten(1, (units, size)), basis)
        return GramMatrices(projected, cross.flatten(1, 2), self.power)

    def squared_error(self, weights: Tensor) -> Tensor:
        """Squared error of weights `[models, values, outputs]` on the rows: `[models, outputs]`."""
        return (weights * (self.gram @ weights - 2 * self.cross)).sum(1) + self.power

    def penalty(self) -> Tensor:
        """What a ridge of one adds to the diagonal: `[models, values]`."""
        return penalty(self.gram.diagonal(dim1=1, dim2=2))

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


def penalty(diagonal: Tensor) -> Tensor:
    """What a ridge of one adds to the diagonal of a Gram matrix.

    Args:
        diagonal: Sum of squares of each value, `[models, values]`.

    Returns:
        The same, and a little of the mean for dead values.
    """
    return (diagonal + 1e-6 * diagonal.mean(1, keepdim=True)).clamp_min(1e-12)


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
        pulled = gram.clone()
        pulled.diagonal(dim1=1, dim2=2).add_(pull)
        root, failed = torch.linalg.cholesky_ex(pulled)
        if not failed.any():
            return root
        pull = torch.where(failed[:, None] > 0, 10 * pull, pull)
