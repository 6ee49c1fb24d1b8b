"""Tasks: a host's former and latter blocks, and the data it is trained on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from paramtrans.api.options import BaseOptions, Configurable
from paramtrans.api.specs import FeatureSpec

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from torch import Tensor, nn


@dataclass(frozen=True)
class Split:
    """Examples with their labels, as stored: raw inputs `[n, *shape]` (often uint8) and labels `[n, ...]`: class
    numbers, or whatever `loss` and the metric compare outputs with."""

    inputs: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def of_classes(self) -> bool:
        """Whether labels are numbers of classes, so that outputs are scores of these; else outputs are values."""
        return not (self.labels.is_floating_point() or self.labels.is_complex())

    def first(self, count: int | None) -> Split:
        """The first `count` examples; all where it is None.

        Args:
            count: How many.

        Returns:
            A split that shares its tensors with this one.
        """
        return Split(self.inputs[:count], self.labels[:count])


class Task(Configurable, ABC):
    """A host's former and latter blocks, the data it is trained on, its loss, and its metric."""

    slot: FeatureSpec
    """Features that enter the slot, where the source or target block stands."""

    metric: str | Mapping[str, Any] | None = None
    """What results are measured by: the name of a metric, such as `"accuracy"`, or a table as in configs, such as
    `{"name": "top_k", "k": 5}`. None: the task's own `score`."""

    def __init__(self, options: BaseOptions) -> None:
        self.options = options

    def prepare(self, cache: Path) -> None:
        """Make the data ready for `split`. Called once in each process before anything else that needs data.

        Args:
            cache: A folder to keep files below.

        Raises:
            DataError: the data cannot be had.
        """

    @abstractmethod
    def former(self) -> nn.Module:
        """The blocks before the slot: `[batch, *input]` → `[batch, *slot]`."""

    def leaving(self) -> FeatureSpec:
        """Features that leave the slot; as those that enter it, unless overridden."""
        return self.slot

    @abstractmethod
    def latter(self) -> nn.Module:
        """The blocks after the slot: `[batch, *leaving]` → `[batch, *outputs]`."""

    def stream(self) -> dict[str, int]:
        """Tensors of `former.*` and `latter.*` with the axis that runs over the slot's channels; none unless declared.

        Translators that look at the surroundings of a block read these, channel by channel.
        """
        return {}

    @abstractmethod
    def split(self, name: str) -> Split:
        """Examples with labels; no example is in two splits.

        Args:
            name: `train`, `holdout` (kept out of training, for selection) or `test` (for reporting alone).

        Returns:
            All examples of it.
        """

    def to_input(self, raw: Tensor) -> Tensor:
        """Raw inputs as the network takes them.

        Args:
            raw: `[..., *shape]`, as stored in a split.

        Returns:
            Floats, or int64 for what the former embeds; by default bytes become [0, 1].
        """
        return raw.float() / 255

    def draws(self, count: int, generator: torch.Generator) -> Tensor:
        """All that is drawn to augment some examples of one host; nothing by default.

        Drawing for two batches at once must give what drawing for one and then the other does: an epoch's are drawn
        in one go.

        Args:
            count: Number of examples.
            generator: The host's own; all randomness comes from it.

        Returns:
            `[count, ...]`.
        """
        import torch

        return torch.empty(count, 0)

    def augmented(self, raw: Tensor, drawn: Tensor) -> Tensor:
        """Training examples changed by what was drawn for them, on any device.

        Args:
            raw: `[..., *shape]`, as stored.
            drawn: What `draws` gave for each, `[..., ...]`.

        Returns:
            The shape of `raw`.
        """
        return raw

    def augment(self, raw: Tensor, generator: torch.Generator) -> Tensor:
        """Random changes of one host's training batch.

        A task may override this alone; it is then called for each host and batch, on the CPU, which is slower.

        Args:
            raw: `[batch, *shape]`, as stored.
            generator: The host's own; all randomness comes from it.

        Returns:
            The shape of `raw`.
        """
        return self.augmented(raw, self.draws(len(raw), generator))

    @abstractmethod
    def loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Mean training loss of each model.

        Args:
            outputs: `[models, batch, ...]`.
            labels: `[models, batch, ...]`.

        Returns:
            `[models]`.
        """

    def score(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """How well each example is answered, in percent; higher is better. For tasks that name no `metric`.

        Args:
            outputs: `[models, batch, ...]`.
            labels: `[batch, ...]`, the same for all models.

        Returns:
            `[models, batch]`.
        """
        raise NotImplementedError(f"{type(self).__name__} names a metric, and has no score of its own")
