"""Rows of what a layer reads and should give, kept as they are: cheaper than Gram matrices where they are few.

A Linear behind the flattened features of a convolutional network reads tens of thousands of values of each example.
Their Gram matrix has the square of that many numbers, and is solved for in the cube; the same solution follows from
products of rows with rows (the dual form of ridge regression, Saunders, Gammerman and Vovk, 1998).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from paramtrans.ops.least_squares import GramMatrices, factor, penalty, squared


@dataclass(frozen=True)
class FewRows:
    """What `GramMatrices` are of, with their methods; the last value read is a constant, until a view takes it out."""

    read: Tensor
    """`[models, rows, values]`, in double precision."""
    wanted: Tensor
    """`[models, rows, outputs]`, in double precision."""

    def __add__(self, other: FewRows) -> FewRows:
        return FewRows(torch.cat([self.read, other.read], dim=1), torch.cat([self.wanted, other.wanted], dim=1))

    @property
    def size(self) -> int:
        """Values read, with the constant."""
        return self.read.shape[2]

    @property
    def count(self) -> Tensor:
        """How many rows there are, by their weights: `[models]`."""
        return self.read[..., -1].square().sum(1)

    @cached_property
    def diagonal(self) -> Tensor:
        """Sum of squares of each value read: `[models, values]`."""
        return self.read.square().sum(1)

    @property
    def power(self) -> Tensor:
        """Sum of squares of each wanted output: `[models, outputs]`."""
        return self.wanted.square().sum(1)

    def gram_matrices(self, rounded: bool = False) -> GramMatrices:
        """The same as Gram matrices.

        Args:
            rounded: Whether products of values are in single precision, in a quarter of the time: enough to choose by.
        """
        if not rounded:
            return GramMatrices(self.read.mT @ self.read, self.read.mT @ self.wanted, self.power)
        products = torch.stack([squared(rows) for rows in self.read.float()]).double()
        return GramMatrices(products, self.read.mT @ self.wanted, self.power)

    def whole(self) -> FewRows:
        """With the constant, whose weights are the bias."""
        return self

    def plain(self) -> FewRows:
        """Without the constant."""
        return FewRows(self.read[..., :-1], self.wanted)

    def centred(self) -> FewRows:
        """With all means taken out, and so without the constant."""
        constant = self.read[..., -1:]
        share = constant / constant.square().sum(1, keepdim=True)
        read, wanted = (side - constant @ (share.mT @ side) for side in (self.read[..., :-1], self.wanted))
        return FewRows(read, wanted)

    def spread(self) -> Tensor:
        """Sum of squares of each wanted output with its mean taken out: `[models, outputs]`."""
        return self.centred().power

    def values(self, chosen: Tensor) -> FewRows:
        """Some of the values read alone."""
        return replace(self, read=self.read[..., chosen])

    def some_outputs(self, step: int) -> FewRows:
        """Every `step`-th output alone."""
        return replace(self, wanted=self.wanted[..., ::step])

    def scaled(self, gain: Tensor) -> FewRows:
        """With each wanted output times a number, `[outputs]` or `[models, 1, outputs]`."""
        return replace(self, wanted=self.wanted * gain)

    def combined(self, basis: Tensor) -> FewRows:
        """Of combinations of each unit's values, `[units, values of a unit, combinations]`; values run unit by unit."""
        per_unit = self.read.unflatten(2, basis.shape[:2])
        return replace(self, read=torch.einsum("mnuv,uvr->mnur", per_unit, basis).flatten(2))

    def without(self, others: Tensor, values: Tensor) -> FewRows:
        """Of some of the values read, once all that others can say is taken out; see `GramMatrices.without`.

        With R the rows of the others and P their pull, G_vv - G_vo (G_oo + P)⁻¹ G_ov = R_vᵀ (I + R P⁻¹ Rᵀ)⁻¹ R_v, so
        rows are multiplied by the inverse of that matrix's Cholesky factor.

        Args:
            others: Numbers of the values that are taken out, `[n]`.
            values: Numbers of those that are kept, `[m]`.
        """
        if not len(others):
            return self.values(values)
        across = self.read[..., others]
        pull = 1e-4 * self.diagonal[:, others] + 1e-12
        kernel = (across / pull[:, None]) @ across.mT
        root = factor(kernel, torch.ones_like(kernel[..., 0]))
        read, wanted = (
            torch.linalg.solve_triangular(root, side, upper=False) for side in (self.read[..., values], self.wanted)
        )
        return FewRows(read, wanted)

    def squared_error(self, weights: Tensor) -> Tensor:
        """Squared error of weights `[models, values, outputs]` on the rows: `[models, outputs]`."""
        return (self.read @ weights - self.wanted).square().sum(1)

    def penalty(self) -> Tensor:
        """What a ridge of one adds to the diagonal of the Gram matrix: `[models, values]`."""
        return penalty(self.diagonal)

    def ridge(self, start: Tensor, strength: Tensor) -> Tensor:
        """Weights of least squared error, pulled towards a start; those of `GramMatrices.ridge`.

        With R the rows, Y what is wanted and D the pull, W = W₀ + D⁻¹ Rᵀ (I + R D⁻¹ Rᵀ)⁻¹ (Y - R W₀).

        Args:
            start: W₀, `[models, values, outputs]`.
            strength: `[models]`.

        Returns:
            W, `[models, values, outputs]`.

        Raises:
            SpecMismatch: the numbers are not finite.
        """
        strength = strength.clamp_min(1e-9)[:, None]
        root = factor(self._kernel, strength.expand(-1, self.read.shape[1]))
        solved = torch.cholesky_solve(self.wanted - self.read @ start, root)
        return start + (self.read.mT @ solved) / self.penalty()[..., None]

    @cached_property
    def _kernel(self) -> Tensor:
        """R D⁻¹ Rᵀ for a ridge of one: `[models, rows, rows]`."""
        return (self.read / self.penalty()[:, None]) @ self.read.mT
