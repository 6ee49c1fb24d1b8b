"""The proof that units can be left out: the network without them gives what it gives with their values set to zero."""

from __future__ import annotations

import copy
import traceback
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.utils._pytree import tree_map

from paramtrans.networks.forward.activations import tensors_in
from paramtrans.networks.forward.programs import run_quietly
from paramtrans.networks.graph.capture import Program
from paramtrans.networks.graph.masked import HALF, Masked, full_precision, in_full
from paramtrans.networks.graph.narrow import Removal, Setting, candidates, narrow
from paramtrans.networks.graph.program_numbers import program_numbers
from paramtrans.utils.fast_path import layer_by_layer

TOLERANCE = 1e-3
"""Largest difference, relative to the largest output."""
SHARE = 0.02
"""Largest difference, relative to what leaving the units out changes at all: a wrong unit would change as much."""
CODE = "the code around it takes no other number of units"
"""Why a group stays where a number in the network's code is out of reach, as its reason begins."""
OTHER = "without them it computes something else"
"""Why a group stays whose removal is no removal, as its reason begins."""
MOST_TRIED = 6
"""Numbers in a network's code, of which all combinations are tried where not all of them belong to the units."""


@dataclass(frozen=True)
class Proof:
    """How the smaller network was found, and how near it comes."""

    difference: float
    """Largest difference of outputs, relative to the largest output."""
    settings: tuple[Setting, ...]
    """Numbers in the network's code that had to follow."""
    failure: str | None = None
    """Why the units cannot be left out; None where they can."""


def with_random_constants(network: nn.Module) -> nn.Module:
    """A copy of a network in which every unit counts: constant parameters (ones, zeros, tiny scales) are random, and
    weights are no smaller than those of layers that keep the size of features. Attention that was hardly trained looks
    at all tokens alike, so that a wrong number of heads would hardly show."""
    copied = copy.deepcopy(network)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in copied.parameters():
            if not parameter.is_floating_point() or parameter.numel() < 2:
                continue
            values = parameter.float()
            deviation, largest = float(values.std()), float(values.abs().max())
            if deviation <= 1e-3 * max(1e-3, largest) or largest < 1e-3:
                parameter.copy_(0.5 + torch.rand(parameter.shape, generator=generator).to(parameter))
            elif parameter.ndim > 1:
                parameter.mul_(max(1.0, (parameter.numel() / len(parameter)) ** -0.5 / deviation))
    return copied


def named_tensors(network: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name."""
    pairs = [*network.named_parameters(remove_duplicate=False), *network.named_buffers(remove_duplicate=False)]
    return dict(pairs)


def prove(
    network: nn.Module, removal: Removal, full_outputs: list[Tensor] | None = None, likely: Iterable[Setting] = ()
) -> Proof:
    """Try whether a network without some units computes what it does with these units at zero.

    Where its code holds numbers that do not fit, attributes with these numbers are tried. What differs is tried in more
    precision, as rounding may be all that differs: deep networks with random constants may make much of it.

    Args:
        network: In eval mode, from `with_random_constants`.
        removal: The units that are left out.
        full_outputs: Outputs with all units, where they are known.
        likely: Settings that parts of the removal needed. Like ones, in modules alike, are tried first.
    """
    proof = _tried(network, removal, full_outputs, likely)
    half = any(tensor.dtype in HALF for tensor in named_tensors(network).values())
    for dtype in (torch.float32, torch.float64) if half else (torch.float64,):
        if proof.failure is None or proof.difference == float("inf"):
            break
        try:
            more_precise = _tried(copy.deepcopy(network).to(dtype), removal, None, likely)
        except Exception:  # code that insists on a precision may raise anything
            break
        proof = more_precise if more_precise.failure is None else proof
    return proof


def _tried(network: nn.Module, removal: Removal, full_outputs: list[Tensor] | None, likely: Iterable[Setting]) -> Proof:
    """One proof, in the precision of the network."""
    program, tensors = removal.labelled.program, named_tensors(network)
    masked_outputs = Masked(program, tensors, removal).outputs()
    full_outputs = full_outputs if full_outputs is not None else Masked(program, tensors).outputs()
    candidate_settings, certain = candidates(network, removal), program_numbers(removal)
    effect = largest_difference(full_outputs, masked_outputs)
    failure, least = "", float("inf")
    likely_kinds = {_kind(item) for item in likely}
    for settings in dict.fromkeys(
        [tuple(item for item in candidate_settings if _kind(item) in likely_kinds), *_choices(candidate_settings)]
    ):
        try:
            outputs = run(narrow(network, removal, [*settings, *certain], share=True), program)
        except Exception as error:  # a network's own code may raise anything
            failure = failure or _reason(error)
            continue
        if [item.shape for item in outputs] != [item.shape for item in masked_outputs]:
            failure = failure or "the outputs change their shape"
            continue
        least = min(least, largest_difference(masked_outputs, outputs))
        if least <= min(TOLERANCE, max(SHARE * effect, 1e-5)):
            return Proof(least, (*settings, *certain))
    if least < float("inf"):
        failure = f"{OTHER} (by {least:.1e} of its largest output)"
    return Proof(least, (), failure or "what it computes without them is no finite number")


def _kind(setting: Setting) -> tuple[Any, ...]:
    """What settings of layers alike have in common: all but the numbers in their paths."""
    return (*_without_numbers(setting.module), setting.attribute, setting.before, setting.after)


def _without_numbers(path: str) -> list[str]:
    return [part for part in path.split(".") if not part.isdigit()]


def _choices(settings: list[Setting]) -> list[tuple[Setting, ...]]:
    """None, all candidates, then parts of them."""
    kinds = list(dict.fromkeys((setting.attribute, setting.before, setting.after) for setting in settings))
    kind_choices = [(), tuple(kinds)]
    if len(kinds) <= MOST_TRIED:
        kind_choices += [
            chosen_kinds for size in range(len(kinds) - 1, 0, -1) for chosen_kinds in combinations(kinds, size)
        ]
    kind_choices = list(dict.fromkeys(kind_choices))
    return [
        tuple(setting for setting in settings if (setting.attribute, setting.before, setting.after) in chosen_kinds)
        for chosen_kinds in kind_choices
    ]


@torch.no_grad()
def run(network: nn.Module, program: Program) -> list[Tensor]:
    """The output tensors of a network for the example inputs of a program."""
    args, kwargs = tree_map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, program.arguments)
    if full := full_precision(named_tensors(network).values()):
        args, kwargs = in_full((args, kwargs), full)
    with layer_by_layer():
        return tensors_in(run_quietly(network, *args, **kwargs))


def largest_difference(outputs: list[Tensor], other_outputs: list[Tensor]) -> float:
    """Largest difference, each output relative to its largest value; infinite where something is not finite."""
    worst = 0.0
    for a, b in zip(outputs, other_outputs, strict=True):
        if a.is_floating_point() and a.numel():
            difference = float((a.double() - b.double()).abs().max()) / max(float(a.double().abs().max()), 1e-30)
            worst = max(worst, difference if difference == difference else float("inf"))
    return worst


def _reason(error: Exception) -> str:
    """What stopped a smaller network: the line of its own code, and what that says."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/torch/" not in frame.filename]
    network_frames = [frame for frame in frames if "/paramtrans/networks/" not in frame.filename]
    line = (
        f" ({network_frames[-1].filename.rsplit('/', 1)[-1]}:{network_frames[-1].lineno}: {network_frames[-1].line})"
        if network_frames
        else ""
    )
    reason = str(error).partition("\n")[0][:160]
    return f"{CODE}{line}: {type(error).__name__}: {reason}"


def advice(network: nn.Module, reasons: Iterable[str]) -> str:
    """What may help with groups that were refused; empty where nothing is known to.

    Args:
        network: The network.
        reasons: Why its groups were refused.
    """
    if isinstance(network, GraphModule) or not any(reason.startswith(CODE) for reason in reasons):
        return ""
    return "numbers in the code may follow in the network's captured program (as_program(network, inputs), --captured)"
