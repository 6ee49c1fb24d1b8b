"""Translators: anything that maps source parameters to target parameters."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from paramtrans.api.adapter import BlockAdapter
from paramtrans.api.context import Context
from paramtrans.api.options import BaseOptions, Configurable
from paramtrans.errors import SpecMismatch

if TYPE_CHECKING:
    from torch import Tensor

    from paramtrans.api.stacking import Params
    from paramtrans.api.units import UnitCase, UnitPiece


class Translator(Configurable, ABC):
    """Anything that maps source parameters to target parameters, for any pair of blocks it says it can.

    The constructor raises `SpecMismatch` for a pair it cannot translate.
    """

    learns: ClassVar[bool] = False
    """Whether it has to be trained on a zoo before it translates."""
    needs_probes: ClassVar[bool] = False
    """Whether it compares what blocks compute, and so needs a context with probes."""

    narrows: ClassVar[bool] = True
    """Whether it is for blocks of fewer units. One that is not writes blocks of networks that keep their width too."""

    keeps_units: ClassVar[bool] = False
    """Whether it can choose units of any network (`keep`), beside writing blocks that adapters know."""
    merges_units: ClassVar[bool] = False
    """Whether it can merge units of any network into fewer (`merge`)."""
    solves_readers: ClassVar[bool] = False
    """Whether the layers that read units are solved for by least squares when it has its turn. A number `ridge` among
    the options says how firmly they are held."""
    adjusts_units: ClassVar[bool] = False
    """Whether it can go on from what was written for a group of units (`adjust`). A number `batch` among the options
    says how many inputs are run together."""

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
        """Choose the units of a group that stay, in a network that is translated by units.

        Args:
            options: The translator's.
            case: The units: their weights, and what reads them.

        Returns:
            Numbers of the units that stay, `[count]`, in order.

        Raises:
            SpecMismatch: the translator knows blocks of adapters alone, or does not take this group, which then stays
                as it is.
        """
        raise SpecMismatch(f"{cls.__name__} writes blocks that an adapter knows, and chooses no units of a network")

    @classmethod
    def merge(cls, options: BaseOptions, case: UnitCase) -> Tensor:
        """Shares of the units of a group in those that stay, `[count, units]`: what writes a unit becomes the mean of
        what writes those in it, by share (each row adds up to one); what reads it the sum over all that have a share.

        Args:
            options: Of the translator.
            case: The group, how many units stay, and statistics of its readers.

        Returns:
            Shares, `[count, units]`.

        Raises:
            SpecMismatch: as `keep`.
        """
        raise SpecMismatch(f"{cls.__name__} merges no units of a network")

    @classmethod
    def adjust(cls, options: BaseOptions, piece: UnitPiece) -> Mapping[str, Tensor]:
        """Other values for some of `piece.params`, after the units were chosen and the network is smaller.

        Args:
            options: Of the translator.
            piece: The network around the group, as a function of its parameters, with inputs and outputs.

        Returns:
            Tensors by name, of the shapes that they have.

        Raises:
            SpecMismatch: these options need what a piece of a network has not.
        """
        raise SpecMismatch(f"{cls.__name__} does not go on from units of a network")
