"""Translators that work on units of any network, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from paramtrans.api.options import BaseOptions, validate
from paramtrans.api.translator import Translator
from paramtrans.errors import SpecMismatch
from paramtrans.networks.loading.host_network import HostNetwork
from paramtrans.networks.units.widths import GroupRule
from paramtrans.plugins.registry import Registry


@dataclass(frozen=True)
class UnitStep:
    """A translator of a chain, with its options."""

    name: str
    component: type[Translator]
    options: BaseOptions

    @property
    def ridge(self) -> float | None:
        """Strength of the ridge with which layers that read units are solved for, where it has such an option."""
        value = getattr(self.options, "ridge", None)
        return None if value is None else float(value)


Named = Sequence[tuple[Any, Mapping[str, Any]]]
"""Translators as a user names them, the first and those that go on from it, each with its options."""


def step_of(name: Any, options: Mapping[str, Any], registry: Registry) -> UnitStep:
    """The translator that a name stands for.

    Args:
        name: As a user gives it.
        options: Of the translator.
        registry: The plugins that translators come from.

    Raises:
        SpecMismatch: it is a trained one, or no plugin has it.
        ConfigError: its options are wrong.
    """
    if not isinstance(name, str) or name not in {entry.name for entry in registry.of_kind("translator")}:
        raise SpecMismatch(f"{name if isinstance(name, str) else 'a trained translator'} writes blocks alone")
    component = registry.load("translator", name)
    return UnitStep(name, component, validate(component.Options, dict(options), f"translator {name}: "))


def unit_chain(named: Named, registry: Registry) -> list[UnitStep]:
    """The translators that these names stand for, in order.

    Args:
        named: Translators as a user names them, each with its options.
        registry: The plugins that translators come from.

    Raises:
        SpecMismatch: one of them does not work on units, or not in this place.
        ConfigError: its options are wrong.
    """
    steps: list[UnitStep] = []
    for number, (name, options) in enumerate(named):
        step = step_of(name, options, registry)
        component = step.component
        chooses = component.keeps_units or component.merges_units
        goes_on = component.solves_readers or component.adjusts_units
        if number == 0 and not chooses:
            raise SpecMismatch(
                f"{name} goes on from units that another translator chose; name it in then"
                if goes_on
                else f"{name} writes blocks that an adapter knows, and works on no units"
            )
        if number > 0 and not goes_on:
            raise SpecMismatch(
                f"{name} chooses units and cannot go on from others; name it first"
                if chooses
                else f"{name} writes blocks that an adapter knows, and works on no units"
            )
        if component.solves_readers and any(step.component.adjusts_units for step in steps):
            raise SpecMismatch(f"{name} solves for what units were chosen for; name it before {steps[-1].name}")
        steps.append(step)
    return steps


def _unfit_reason(named: Named, registry: Registry) -> str | None:
    """Why these translators do not work on units; None where they do."""
    try:
        unit_chain(named, registry)
    except SpecMismatch as error:
        return str(error)
    return None


def unsuited_reason(
    module: nn.Module,
    named: Named,
    rule: Callable[..., Any],
    sequential: bool,
    batches: Iterable[Any],
    registry: Registry,
) -> str | None:
    """Why a network cannot be translated by the units that its graph shows; None where it can.

    Args:
        module: The network.
        named: Translators as a user names them, each with its options.
        rule: For widths.
        sequential: Whether each block is to make up for those before it.
        batches: Calibration inputs.
        registry: The plugins that translators come from.
    """
    if isinstance(module, HostNetwork):
        return "hosts of a task are translated by blocks"
    if next(iter(batches), None) is None:
        given = "calibrate=, a batch or more; --calibrate DATA, or made up: --probes smooth --input 3,224,224"
        return f"give inputs, with which the graph of the network is captured ({given})"
    if not sequential:
        return "every group makes up for those before it (leave out sequential=False, --independent)"
    if not isinstance(rule, GroupRule):
        return f"{type(rule).__name__} is a rule for blocks of adapters (it has no of_groups)"
    return _unfit_reason(named, registry)


def unit_translators(registry: Registry) -> tuple[list[str], list[str]]:
    """Names of the translators that choose units, and of those that go on from what another one chose."""
    choosing, going_on = [], []
    for name, component in registry.usable("translator"):
        choosing += [name] if component.keeps_units or component.merges_units else []
        going_on += [name] if component.solves_readers or component.adjusts_units else []
    return choosing, going_on
