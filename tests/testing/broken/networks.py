"""Architecture sources, width rules, metrics and report sections that break one promise each, and sound ones."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import nn

from paramtrans import Component, hookimpl
from paramtrans.api.architecture import ArchitectureSource
from paramtrans.api.metric import Metric
from paramtrans.api.report_section import ReportSection
from paramtrans.networks.widths import WidthRule

BROKEN: dict[str, str] = {}
"""Names of classes, each with the check that must fail, and no other."""


def breaks(check: str) -> Any:
    """Registers a class as one that fails `check` alone."""

    def named(cls: type) -> type:
        BROKEN[cls.__name__] = check
        return cls

    return named


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


@breaks("gives_one_number_for_each_host_and_example")
class MeanOfAll(SoundMetric):
    def measure(self, outputs: Any, labels: Any) -> Any:
        return super().measure(outputs, labels).mean(1)


@breaks("gives_one_number_for_each_host_and_example")
class BesideTheOthers(SoundMetric):
    """What it says of a host depends on the other hosts."""

    def measure(self, outputs: Any, labels: Any) -> Any:
        return outputs.std(-1) - outputs.mean((0, 2))


class SoundRule(WidthRule):
    """Half of the units."""

    def __call__(self, network: Any, blocks: Any, batches: Any) -> Any:
        return {b.entrance: {group: max(1, size // 2) for group, size in b.sizes.items()} for b in blocks}


@breaks("gives_sizes_of_every_group")
class NoBlocks(SoundRule):
    def __call__(self, network: Any, blocks: Any, batches: Any) -> Any:
        return {}


@breaks("gives_sizes_of_every_group")
class TooWide(SoundRule):
    def __call__(self, network: Any, blocks: Any, batches: Any) -> Any:
        return {block.entrance: {group: 2 * size for group, size in block.sizes.items()} for block in blocks}


@breaks("gives_sizes_of_every_group")
class ChangesTheNetwork(SoundRule):
    def __call__(self, network: Any, blocks: Any, batches: Any) -> Any:
        with torch.no_grad():
            next(network.parameters()).zero_()
        return super().__call__(network, blocks, batches)


def _of(base: type) -> list[Component]:
    own = [cls for cls in globals().values() if isinstance(cls, type) and issubclass(cls, base)]
    mine = [cls for cls in own if cls.__module__ == __name__]
    return [Component(cls.__name__, "for tests", f"{__name__}:{cls.__name__}") for cls in mine]


@hookimpl
def paramtrans_architectures() -> list[Component]:
    return _of(ArchitectureSource)


@hookimpl
def paramtrans_width_rules() -> list[Component]:
    return _of(WidthRule)


@hookimpl
def paramtrans_metrics() -> list[Component]:
    return _of(Metric)


@hookimpl
def paramtrans_report_sections() -> list[Component]:
    return _of(ReportSection)
