"""The proof that units can be left out: the network without them gives what it gives with their values set to zero."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.utils._pytree import tree_map

from paramtrans.errors import SpecMismatch
from paramtrans.networks.forward.outputs import tensors_in
from paramtrans.networks.forward.programs import run_quietly
from paramtrans.networks.graph.capture import Program
from paramtrans.networks.graph.masked import Masked, in_precision, precision_of
from paramtrans.networks.graph.narrow import Removal, Setting, candidates, narrow
from paramtrans.networks.graph.program_numbers import program_numbers, remembered_channels
from paramtrans.networks.graph.stand_ins import StandIns
from paramtrans.ops.chunks import chunks, real_parts
from paramtrans.utils import memory
from paramtrans.utils.fast_path import layer_by_layer

TOLERANCE = 1e-3
"""Largest difference, relative to the largest output."""
SURELY = 1e-5
"""Largest difference that is rounding in any case."""
SHARE = 0.02
"""Largest difference, relative to what leaving the units out changes at all: a wrong unit would change as much."""
CODE = "the code around it takes no other number of units"
"""Why a group stays where a number in the network's code is out of reach, as its reason begins."""
HIGHER = (torch.float32, torch.float64)
"""Precisions that a proof is tried in where it fails in a lower one."""
OTHER = "without them it computes something else"
"""Why a group stays whose removal is no removal, as its reason begins."""
INCOMPARABLE = (
    "the network gives no numbers that can be compared, so nothing says whether a smaller one computes the same; "
    "let it return what these are computed from, as scores in place of their `argmax`"
)
"""Why nothing can be proven of a network."""
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


def named_tensors(network: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name."""
    pairs = [*network.named_parameters(remove_duplicate=False), *network.named_buffers(remove_duplicate=False)]
    return dict(pairs)


def prove(values: StandIns, removal: Removal, likely: Iterable[Setting] = ()) -> Proof:
    """Try whether a network without some units computes what it does with these units at zero.

    Where its code holds numbers that do not fit, attributes with these numbers are tried. What differs is tried in
    higher precision, as rounding may be all that differs: by a deep network it is enlarged ten thousand times.

    Args:
        values: The network, in eval mode, and what stands in for its parameters.
        removal: The units that are left out.
        likely: Settings that parts of the removal needed. Like ones, in modules alike, are tried first.
    """
    proof = _tried(values, removal, likely)
    memory.give_back()
    precision = precision_of(named_tensors(values.network))
    for higher in HIGHER[HIGHER.index(precision) + 1 :] if precision in HIGHER else HIGHER:
        if proof.failure is None or proof.difference == float("inf"):
            break
        try:
            proof = _tried(values, removal, likely, higher)
        except Exception:  # code that insists on its precision may raise anything
            break
    return proof


def masked_outputs(
    values: StandIns, program: Program, removal: Removal | None = None, precision: torch.dtype | None = None
) -> list[Tensor]:
    """What a network gives with units at zero.

    Args:
        values: The network, and what stands in for its parameters.
        program: Of the network.
        removal: The units; none by default.
        precision: Higher than the network's own; None for that.
    """
    tensors = named_tensors(values.network)
    with values.read(values.network, precision=precision):
        return Masked(program, tensors, removal, precision).outputs()


def _tried(
    values: StandIns, removal: Removal, likely: Iterable[Setting], precision: torch.dtype | None = None
) -> Proof:
    """One proof, in the precision of the network or in a higher one."""
    program, network, retained = removal.labelled.program, values.network, removal.retained()
    wanted = masked_outputs(values, program, removal, precision)

    @cache
    def effect() -> float:
        """What leaving the units out changes; of most proofs it need not be known."""
        return largest_difference(masked_outputs(values, program, None, precision), wanted)

    candidate_settings = candidates(network, removal)
    certain = [*program_numbers(removal), *remembered_channels(network, removal)]

    def compared(settings: Iterable[Setting]) -> tuple[float, str]:
        """How far a network with these settings is off, infinitely where it fails; then why."""
        try:
            narrowed = narrow(network, removal, [*settings, *certain], share=True)
            with values.read(narrowed, retained, precision):
                outputs = run(narrowed, program, precision)
        except Exception as error:  # a network's own code may raise anything
            return float("inf"), _reason(error)
        if [item.shape for item in outputs] != [item.shape for item in wanted]:
            return float("inf"), "the outputs change their shape"
        return largest_difference(wanted, outputs), ""

    def passes(difference: float) -> bool:
        return difference <= SURELY or difference <= min(TOLERANCE, SHARE * effect())

    failure, least = "", float("inf")
    likely_kinds = {_kind(item) for item in likely}
    likely_settings = tuple(item for item in candidate_settings if _kind(item) in likely_kinds)
    for settings in dict.fromkeys([likely_settings, *_choices(candidate_settings)]):
        difference, reason = compared(settings)
        failure, least = failure or reason, min(least, difference)
        if passes(difference):
            if settings != likely_settings:
                settings = _needed(settings, lambda remaining: passes(compared(remaining)[0]))
            return Proof(difference, (*settings, *certain))
    if least < float("inf"):
        failure = f"{OTHER} (by {least:.1e} of its largest output)"
    return Proof(least, (), failure or "what it computes without them is no finite number")


def _needed(settings: tuple[Setting, ...], holds: Callable[[tuple[Setting, ...]], bool]) -> tuple[Setting, ...]:
    """Those settings without which a proof fails: other attributes may hold the same number. Like ones go together, as
    each try is a pass of the network."""
    kinds = list(dict.fromkeys(_kind(setting) for setting in settings))
    for kind in kinds if len(kinds) > 1 else ():
        remaining = tuple(setting for setting in settings if _kind(setting) != kind)
        if holds(remaining):
            settings = remaining
    return settings


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
def run(network: nn.Module, program: Program, precision: torch.dtype | None = None) -> list[Tensor]:
    """The output tensors of a network for the example inputs of a program.

    Args:
        network: In eval mode.
        program: Whose inputs are taken.
        precision: In which its parameters are read; None: in their own.
    """
    given = tree_map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, program.arguments)
    args, kwargs = in_precision(given, precision or precision_of(named_tensors(network)))
    with layer_by_layer():
        return tensors_in(run_quietly(network, *args, **kwargs))


def largest_difference(outputs: list[Tensor], other_outputs: list[Tensor]) -> float:
    """Largest difference, each output relative to its largest value; infinite where something is not finite.

    Args:
        outputs: Of a network.
        other_outputs: Of another one, of the same shapes.

    Raises:
        SpecMismatch: No output has numbers that say how near another network comes, as indices do not.
    """
    pairs = [
        (real_parts(a), real_parts(b))
        for a, b in zip(outputs, other_outputs, strict=True)
        if (a.is_floating_point() or a.is_complex()) and a.numel()
    ]
    if not pairs:
        raise SpecMismatch(INCOMPARABLE)
    worst = 0.0
    for a, b in pairs:
        difference, largest = _difference(a, b)
        difference /= max(largest, 1e-30)
        worst = max(worst, difference if difference == difference else float("inf"))
    return worst


def _difference(a: Tensor, b: Tensor) -> tuple[float, float]:
    """Largest difference of two tensors, and the largest value of the first; NaN where there is one."""
    largest = [torch.stack([(x.double() - y.double()).abs().max(), x.double().abs().max()]) for x, y in chunks(a, b)]
    difference, value = torch.stack(largest).amax(0).tolist()
    return difference, value


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
