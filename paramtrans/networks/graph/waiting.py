"""Groups whose units are chosen, where that is asked for, when the one layer that reads them is reached.

What it should give in the smaller network also makes up for what was lost before; so do units that are chosen by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from paramtrans.networks.graph.groups import Analysis, NamedGroup
from paramtrans.networks.graph.proof import named_tensors
from paramtrans.networks.graph.readers import ReaderLayer
from paramtrans.networks.graph.unit_cases import Choose, reading_of, unit_case, values_of
from paramtrans.ops.halves import Halves


def can_wait(group: NamedGroup, counts: Mapping[NamedGroup, int]) -> bool:
    """Whether the units of a group may be chosen where its one reader is reached, which then can be solved for.

    No other group that becomes smaller may be read there.

    Args:
        group: The group.
        counts: All groups that become smaller.
    """
    if len(group.readers) != 1 or not group.readers[0].solvable or group.stream or group.normalised:
        return False
    reader = group.readers[0]
    return not any(other is not group and reader in other.readers for other in counts)


@dataclass
class Waiting:
    """Groups that wait, and the units that were chosen of them."""

    analysis: Analysis
    counts: Mapping[NamedGroup, int]
    choose: Choose
    examples: int
    """How many examples the equations are of."""
    retained: dict[NamedGroup, Tensor] = field(default_factory=dict)
    """Of the groups whose reader was reached, the numbers of the units that stay, `[count]`."""

    def staying(self, layer: ReaderLayer, halves: Halves, tensors: Mapping[str, Tensor]) -> Tensor | None:
        """Choose the units of the group that a layer reads.

        Args:
            layer: The layer, which is reached.
            halves: Its equations, with all units.
            tensors: Of the smaller network, by name.

        Returns:
            Numbers of the values that it goes on reading; None where no group waits for it.
        """
        group = next((group for group in self.counts if group.readers[0].weight == layer.weight), None)
        if group is None:
            return None
        readings = (reading_of(group, layer, halves, tensors, self.examples),)
        case = unit_case(self.analysis, named_tensors(self.analysis.network), group, self.counts[group], readings)
        units = self.choose(group, case)
        if units is None:
            return None
        self.retained[group] = units
        weight = tensors[layer.weight]
        values = values_of(group, layer, weight).view(len(group), -1)
        stays = torch.ones(weight.flatten(1).shape[1] if layer.axis == 1 else len(weight), dtype=torch.bool)
        stays[values.flatten()] = False
        stays[values[units].flatten()] = True
        return stays.nonzero()[:, 0]
