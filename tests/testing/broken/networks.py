"""Architecture sources, width rules, metrics and report sections that break one promise each, and sound ones.

`breaks` names the check that a class must fail, and no other.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import nn

from paramtrans import Component, hookimpl
from paramtrans.api.architecture import ArchitectureSource
from paramtrans.api.metric import Metric
from paramtrans.api.report_section import ReportSection
from paramtrans.networks.widths import WidthRule


class SoundSource(ArchitectureSource):
    """One network, whatever its name."""

    def build(self, name: str, arguments: Any) -> Any:
        return nn.Sequential(nn.Linear(2, 2))


class SoundSection(ReportSection):
    """A sentence."""

    title: ClassVar[str] = "A section"

    def html(self, run: Any, evaluation: Any) -> str:
        return "<p>Nothing to say.</p>"


class SoundMetric(Metric):
    """Whether the label has the highest output."""

    unit: ClassVar[str] = "%"

    def measure(self, outputs: Any, labels: Any) -> Any:
        return 100.0 * (outputs.argmax(-1) == labels)


class MeanOfAll(SoundMetric):
    breaks = "gives_one_number_for_each_host"

    def measure(self, outputs: Any, labels: Any) -> Any:
        return super().measure(outputs, labels).mean(1)


class BesideTheOthers(SoundMetric):
    """What it says of a host depends on the other hosts."""

    breaks = "gives_one_number_for_each_host"

    def measure(self, outputs: Any, labels: Any) -> Any:
        return outputs.std(-1) - outputs.mean((0, 2))


class SoundRule(WidthRule):
    """Half of the units."""

    def __call__(self, network: Any, blocks: Any, batches: Any) -> Any:
        return {b.entrance: {group: max(1, size // 2) for group, size in b.sizes.items()} for b in blocks}


class NoBlocks(SoundRule):
    breaks = "gives_sizes_of_every_group"

    def __call__(self, network: Any, blocks: Any, batches: Any) -> Any:
        return {}


class TooWide(SoundRule):
    breaks = "gives_sizes_of_every_group"

    def __call__(self, network: Any, blocks: Any, batches: Any) -> Any:
        return {block.entrance: {group: 2 * size for group, size in block.sizes.items()} for block in blocks}


class ChangesTheNetwork(SoundRule):
    breaks = "gives_sizes_of_every_group"

    def __call__(self, network: Any, blocks: Any, batches: Any) -> Any:
        with torch.no_grad():
            next(network.parameters()).zero_()
        return super().__call__(network, blocks, batches)


class MoreUnits(SoundRule):
    breaks = "gives_numbers_of_units"

    def of_groups(self, case: Any) -> Any:
        return {group: len(group) + 1 for group in case.groups}


def announced(base: type) -> list[Component]:
    classes = [value for value in globals().values() if isinstance(value, type) and value.__module__ == __name__]
    return [
        Component(cls.__name__, "for tests", f"{__name__}:{cls.__name__}") for cls in classes if issubclass(cls, base)
    ]


@hookimpl
def paramtrans_architectures() -> list[Component]:
    return announced(ArchitectureSource)


@hookimpl
def paramtrans_width_rules() -> list[Component]:
    return announced(WidthRule)


@hookimpl
def paramtrans_metrics() -> list[Component]:
    return announced(Metric)


@hookimpl
def paramtrans_report_sections() -> list[Component]:
    return announced(ReportSection)
