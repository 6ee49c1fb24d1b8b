"""Random networks: each group of units is proven or refused, and what is left out is what was not read."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st
from torch import nn

from paramtrans.networks.graph.groups import Analysis, NamedGroup, analyse, prove_groups
from paramtrans.networks.graph.narrow import narrow
from paramtrans.networks.graph.proof import prove
from paramtrans.networks.graph.stand_ins import stand_ins
from tests.support.random_networks import network

SOME = 40
"""Networks in `make test`; the sweeps of `make test-slow` take two thousand."""
SETTINGS = settings(
    max_examples=100, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)


def without_readers(whole: nn.Module, analysis: Analysis, kept: dict[NamedGroup, Any]) -> nn.Module:
    """A copy in which nothing is read of the units that go: the columns of all layers that read them are zero."""
    masked = copy.deepcopy(whole)
    tensors = dict(masked.named_parameters(remove_duplicate=False))
    for group, units in kept.items():
        gone = [number for number in range(len(group)) if number not in {*units.tolist()}]
        reading = {(layer.weight, layer.axis) for layer in group.readers}
        for axis in group.units.axes:
            if (axis.tensor, axis.axis) in reading:
                with torch.no_grad():
                    tensors[axis.tensor].index_fill_(axis.axis, axis.indices[gone].flatten(), 0)
    staying = analysis.removal(kept).retained()
    for path, module in masked.named_modules():
        if isinstance(module, nn.LayerNorm | nn.RMSNorm) and f"{path}.weight" in staying:
            module.forward = partial(over_staying, module, staying[f"{path}.weight"][0])  # type: ignore[method-assign]
    return masked


def over_staying(norm: nn.Module, staying: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """A normalisation over some values alone, the others zero."""
    small = type(norm)(len(staying))
    for name, parameter in small.named_parameters():
        parameter.data.copy_(norm.get_parameter(name)[staying])
    return torch.zeros_like(x).index_copy(-1, staying, small(x[..., staying]))


def held(draw: Any, stream: bool) -> str:
    """Make a network smaller, with its residual streams or without; what came of it."""
    whole, inputs = network(draw)
    analysis = analyse(whole, ((inputs,), {}), stream)
    if stream and not any(group.stream for group in analysis.groups):
        return "no stream"
    free = [group for group in analysis.groups if group.hidden or (group.stream and not group.inner and stream)]
    share = draw(st.sampled_from([0.25, 0.5, 0.75]))
    proven = prove_groups(analysis, {group: group.units.allowed(max(1, share * len(group))) for group in free})
    kept = {group: group.units.choose(torch.rand(len(group)), count) for group, count in proven.counts.items()}
    if not kept:
        return "refused" if proven.refused else "nothing free"
    # As `translate` does with what was chosen.
    if prove(stand_ins(whole), analysis.removal(kept)).failure is not None:
        return "refused for its choice"
    removal = analysis.removal(kept)
    small = narrow(whole, removal, list(proven.settings))
    assert sum(parameter.numel() for parameter in small.parameters()) < sum(
        parameter.numel() for parameter in whole.parameters()
    )
    solved = {layer.weight for group in kept for layer in group.readers}
    read = {c.weight for c in analysis.labelled.contractions if c.weight and not bool(removal.stays(c.label).all())}
    if not read <= solved:
        return "smaller, read by grouped convolutions"  # the proof alone holds these
    with torch.no_grad():
        wanted, outputs = without_readers(whole, analysis, kept)(inputs), small(inputs)
    assert outputs.shape == wanted.shape
    assert (outputs - wanted).abs().max() <= 1e-4 * max(1.0, float(wanted.abs().max()))
    return "refused in part" if proven.refused else "smaller"


def count(examples: int, stream: bool = False) -> dict[str, int]:
    seen: dict[str, int] = {}

    @settings(SETTINGS, max_examples=examples)
    @given(st.data())
    def one_example(data: st.DataObject) -> None:
        came = held(data.draw, stream)
        seen[came] = seen.get(came, 0) + 1

    one_example()
    return seen


@pytest.mark.thorough
def test_some_random_networks_become_what_is_read_of_them() -> None:
    seen = count(SOME)
    assert seen.get("smaller", 0) >= SOME / 2, seen


@pytest.mark.slow
def test_two_thousand_random_networks_become_what_is_read_of_them() -> None:
    seen = count(2000)
    print(seen)
    assert seen.get("smaller", 0) >= 1000, seen


@pytest.mark.thorough
def test_streams_of_random_networks_become_what_is_read_of_them() -> None:
    seen = count(60, stream=True)  # most have none
    assert seen.get("smaller", 0) >= 10, seen


@pytest.mark.slow
def test_streams_of_two_thousand_random_networks_become_what_is_read_of_them() -> None:
    seen = count(2000, stream=True)
    print(seen)
    assert seen.get("smaller", 0) >= 400, seen
