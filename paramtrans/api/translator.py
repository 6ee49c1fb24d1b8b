"""Translators: anything that maps source parameters to target parameters."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

from paramtrans.api.adapter import BlockAdapter
from paramtrans.api.context import Context
from paramtrans.api.options import BaseOptions, Configurable
from paramtrans.errors import SpecMismatch

if TYPE_CHECKING:
    from torch import Tensor

    from paramtrans.api.stacking import Params
    from paramtrans.api.units import UnitCase


class Translator(Configurable, ABC):
    """Anything that maps source parameters to target parameters, for any pair of blocks it says it can.

    The constructor raises `SpecMismatch` for a pair it cannot translate.
    """

    learns: ClassVar[bool] = False
    """Whether it has to be trained on a zoo before it translates."""
    needs_probes: ClassVar[bool] = False
    """Whether it compares what blocks compute, and so needs a context with probes."""

    keeps_units: ClassVar[bool] = False
    """Whether it can choose units of any network (`keep`), beside writing blocks that adapters know."""
    solves_readers: ClassVar[bool] = False
    """With `keeps_units`: whether the layers that read units are solved for by least squares after the choice. A
    number `ridge` among the options says how firmly they are held."""

    def __init__(self, options: BaseOptions, source: BlockAdapter, target: BlockAdapter) -> None:
        self.options, self.source, self.target = options, source, target

    @property
    def target_bytes(self) -> int:
        """Bytes that one target block takes where it is kept: four a value, unless fewer hold what was written."""
        return 4 * self.target.spec.numel

    @abstractmethod
    def translate(self, source: Params, context: Context | None = None) -> Params:
        """Target blocks for source blocks, model by model.

        Args:
            source: Stacked tensors of `source.spec`, each `[models, *shape]`; they are not changed.
            context: The hosts around the blocks and probes to compare on, for translators that look at them.

        Returns:
            Stacked tensors of `target.spec`, each `[models, *shape]`, outside any graph.

        Raises:
            SpecMismatch: the translator needs more of the context than it is given.
        """

    @classmethod
    def keep(cls, options: BaseOptions, case: UnitCase) -> Tensor:
        """Choose the units of a group that stay, in a network whose blocks no adapter knows.

        Args:
            options: The translator's.
            case: The units: their weights, and what reads them.

        Returns:
            Numbers of the units that stay, `[count]`, in order.

        Raises:
            SpecMismatch: the translator knows blocks of adapters alone.
        """
        raise SpecMismatch(f"{cls.__name__} writes blocks that an adapter knows, and chooses no units of a network")
