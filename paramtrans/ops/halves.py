"""Gram matrices of what a layer reads and should give, summed for two halves of the examples apart."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from paramtrans.errors import SpecMismatch
from paramtrans.ops.few_rows import FewRows
from paramtrans.ops.least_squares import GramMatrices, squared
from paramtrans.ops.rows import positions, rows
from paramtrans.ops.views import Moments, View
from paramtrans.utils.distributed import ALONE, ProcessGroup

ROWS_AT_ONCE = 4096
"""Rows whose products are added up in single precision."""
RIDGES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 1e2)
"""What is tried where the ridge is chosen on held-out probes."""
OF_ONE = 10.0
"""Ridge for each value that is read for each row, where one example alone leaves nothing to choose it on: neighbouring
rows say nearly the same."""
MANY_VALUES = 1024
"""Values read from which on every other ridge is tried alone, and rows are kept as they are where they are fewer than
half as many."""
OUTPUTS_TRIED = 64
"""Outputs that it is tried on, evenly spread, so that the choice does not cost more than the solution."""


class _Sums:
    """Gram matrices that grow in place. Rows of one model wait until there are enough for one product."""

    def __init__(self) -> None:
        self._matrices: GramMatrices | None = None
        self._waiting: list[tuple[Tensor, Tensor]] = []

    def grow(self, matrices: GramMatrices) -> None:
        """Further rows of several models, summed already."""
        self._matrices = matrices if self._matrices is None else self._matrices + matrices

    def add(self, read: Tensor, wanted: Tensor) -> None:
        """Further rows of one model, `[rows, values]` with the constant last, and `[rows, outputs]`."""
        self._waiting.append((read, wanted))
        if self._count >= ROWS_AT_ONCE:
            self._multiply()

    @property
    def has_rows(self) -> bool:
        """Whether there is anything."""
        return self._matrices is not None or bool(self._waiting)

    @property
    def few(self) -> bool:
        """Whether all rows still wait, and are few for the values that are read."""
        return self._matrices is None and _few(self._count, self._waiting[0][0].shape[1])

    @property
    def _count(self) -> int:
        """Rows that wait."""
        return sum(len(rows_waiting) for rows_waiting, _ in self._waiting)

    def add_up(self, processes: ProcessGroup, device: torch.device) -> None:
        """Put the sums over the rows of all processes in place of this one's, which may have none."""
        # What is decided here depends on what all processes say, so that all of them do the same.
        said = processes.join(torch.tensor([[self._count, int(self._matrices is not None), *self._shape()]]))
        count, are_summed = said[:, :2].sum(0).tolist()
        values, outputs = said[:, 2:].amax(0).tolist()
        if not count and not are_summed:
            return
        if not are_summed and count < ROWS_AT_ONCE and _few(count, values):
            none = (torch.zeros(0, size, device=device) for size in (values, outputs))
            read, wanted = self._joined() if self._waiting else none
            self._waiting = [(processes.join(read.double()), processes.join(wanted.double()))]
            return
        sums = self.matrices() if self.has_rows else _zeros(values, outputs, device)
        for tensor in (sums.gram, sums.cross, sums.power):
            processes.add([tensor])
        self._matrices = sums

    def _shape(self) -> tuple[int, int]:
        """Values that are read, with the constant, and outputs; 0 where that is not known."""
        if self._matrices is not None:
            return self._matrices.cross.shape[1], self._matrices.cross.shape[2]
        return (self._waiting[0][0].shape[1], self._waiting[0][1].shape[1]) if self._waiting else (0, 0)

    def rows(self) -> FewRows:
        """All rows so far, where they are few."""
        read, wanted = self._joined()
        return FewRows(read.double()[None], wanted.double()[None])

    def matrices(self) -> GramMatrices:
        """Of all rows so far; it grows with further ones."""
        if self._waiting:
            self._multiply()
        assert self._matrices is not None
        return self._matrices

    def _joined(self) -> tuple[Tensor, Tensor]:
        if len(self._waiting) > 1:
            read, wanted = (torch.cat(side) for side in zip(*self._waiting, strict=True))
            self._waiting = [(read, wanted)]
        [(read, wanted)] = self._waiting
        return read, wanted

    def _multiply(self) -> None:
        """Products of pieces of the rows that wait, in their own precision, added in double precision."""
        read, wanted = self._joined()
        self._waiting = []
        if self._matrices is None:
            self._matrices = _zeros(read.shape[1], wanted.shape[1], read.device)
        for read_rows, wanted_rows in zip(read.split(ROWS_AT_ONCE), wanted.split(ROWS_AT_ONCE), strict=True):
            self._matrices.gram[0].add_(squared(read_rows))
            self._matrices.cross[0].add_(read_rows.mT @ wanted_rows)
            self._matrices.power[0].add_(wanted_rows.square().sum(0))


def _zeros(values: int, outputs: int, device: torch.device) -> GramMatrices:
    """Sums over no rows."""
    shapes = ((1, values, values), (1, values, outputs), (1, outputs))
    return GramMatrices(*(torch.zeros(shape, dtype=torch.double, device=device) for shape in shapes))


def _few(count: int, values: int) -> bool:
    """Whether rows are better kept as they are."""
    return values > MANY_VALUES and 2 * count < values


class Halves:
    """Gram matrices of every other example apart, so that a fit on one half can be judged on the other."""

    def __init__(self, total: int = 0) -> None:
        """`total`: how many examples will be added; of many, some positions are enough. 0 takes all positions."""
        self._total = total
        self._sums: dict[int, _Sums] = {}
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
                if len(read) == 1:
                    self.add_rows(half, read[0], due[0])
                else:
                    self._sums.setdefault(half, _Sums()).grow(GramMatrices.of(read, due))
        self._examples += entered.shape[1]

    @property
    def examples(self) -> int:
        """How many examples were added by `add`."""
        return self._examples

    @property
    def has_rows(self) -> bool:
        """Whether there is anything."""
        return bool(self._sums)

    @property
    def two(self) -> bool:
        """Whether there are both halves."""
        return len(self._sums) == 2

    @property
    def halves(self) -> Sequence[Moments]:
        """Each half apart, as it is so far; further rows change it."""
        both = [self._sums[half] for half in sorted(self._sums)]
        if all(sums.few for sums in both):
            return [sums.rows() for sums in both]
        return [sums.matrices() for sums in both]

    def add_rows(self, half: int, read: Tensor, wanted: Tensor, scale: Tensor | None = None) -> None:
        """Rows of one model, for one of the halves.

        Args:
            half: 0 or 1.
            read: What the layer reads, `[rows, values]`.
            wanted: What it should give, `[rows, outputs]`.
            scale: What both sides of each row's equations are multiplied by, `[rows, 1]`; by default one.
        """
        scale = torch.ones_like(read[:, :1]) if scale is None else scale.to(read)
        rows_read = torch.cat([read, torch.ones_like(scale)], dim=1).mul_(scale)
        self._sums.setdefault(half, _Sums()).add(rows_read, wanted * scale)

    def add_up(self, processes: ProcessGroup, device: torch.device) -> None:
        """Put the sums over the rows of all processes in place of this one's.

        Args:
            processes: Each has rows of other examples.
            device: Where they are.
        """
        for half in range(2) if processes.size > 1 else ():
            sums = self._sums.get(half) or _Sums()
            sums.add_up(processes, device)
            if sums.has_rows:
                self._sums[half] = sums

    def total(self) -> Moments:
        """Of all examples; raises `SpecMismatch` where there were none."""
        if not self._sums:
            raise SpecMismatch("there are no probes to compare blocks on; give at least one")
        first, *second = self.halves
        return first + second[0] if second else first  # type: ignore[operator]  # both are of one kind

    def ridge(self, view: View, start: Tensor, processes: ProcessGroup = ALONE) -> Tensor:
        """The strength among `RIDGES` that does best on the half it was not fitted on (two-fold cross-validation).

        Args:
            view: How the equations are to be seen: centred, or plain.
            start: The weights that are pulled towards, `[models, values, outputs]`.
            processes: Have the same sums, and share out the strengths.

        Returns:
            `[models]`.
        """
        if not self.two:
            return OF_ONE * start.shape[1] / self.halves[0].count
        step = -(-start.shape[2] // OUTPUTS_TRIED)
        spread = self._spread()[:, ::step]
        scale = spread + 1e-6 * spread.mean(1, keepdim=True) + 1e-30
        first, second = (view(half).some_outputs(step) for half in self.halves)
        start = start[..., ::step]
        tried = RIDGES if start.shape[1] <= MANY_VALUES else RIDGES[::2]
        errors = start.new_zeros(len(tried), len(start))
        for number in range(processes.rank, len(tried), processes.size):
            strengths = start.new_full((len(start),), tried[number])
            on_each = second.squared_error(first.ridge(start, strengths)) + first.squared_error(
                second.ridge(start, strengths)
            )
            errors[number] = (on_each / scale).sum(1)
        processes.add([errors])
        best = errors.argmin(0)
        return torch.tensor(tried, dtype=start.dtype, device=start.device)[best]

    def _spread(self) -> Tensor:
        """As of the total, whose Gram matrix is not needed for it."""
        first, second = (half.values(torch.tensor([half.size - 1])) for half in self.halves)
        spread: Tensor = (first + second).spread()  # type: ignore[operator]  # both are of one kind
        return spread
