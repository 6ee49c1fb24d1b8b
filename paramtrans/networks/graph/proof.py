"""The proof that units can be left out: the network without them gives what it gives with their values set to zero."""

from __future__ import annotations

import copy
import traceback
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import torch
from torch import Tensor, nn
from torch.export.graph_signature import InputKind
from torch.fx import Interpreter, Node
from torch.utils._pytree import tree_flatten, tree_map

from paramtrans.networks.graph.capture import Program, tensors_of
from paramtrans.networks.graph.narrow import Removal, Setting, candidates, narrow
from paramtrans.networks.graph.operators import Contraction, name_of

TOLERANCE = 1e-3
"""Largest difference, relative to the largest output."""
SHARE = 0.02
"""Largest difference, relative to what leaving the units out changes at all: a wrong unit would change as much."""
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


class Masked(Interpreter):
    """A captured program, run with units at zero wherever they are summed over."""

    def __init__(self, program: Program, tensors: dict[str, Tensor], removal: Removal | None = None) -> None:
        super().__init__(program.exported.graph_module)
        self.program, self.tensors, self.removal = program, tensors, removal
        self.at: dict[str, list[Contraction]] = defaultdict(list)
        for one in removal.labelled.contractions if removal else ():
            if one.operand >= 0 and not bool(removal.stays(one.label).all()):  # type: ignore[union-attr]
                self.at[one.node.name].append(one)

    @torch.no_grad()
    def outputs(self) -> list[Tensor]:
        """What the program gives for its example inputs."""
        leaves = iter(tree_flatten(self.program.arguments)[0])
        given: list[Any] = []
        for spec in self.program.exported.graph_signature.input_specs:
            name = spec.arg.name
            if name in self.program.names:
                given.append(self.tensors[self.program.names[name]])
            elif spec.kind is InputKind.USER_INPUT:
                leaf = next(leaves)
                given.append(leaf.clone() if isinstance(leaf, Tensor) else leaf)
            else:
                given.append(self.program.constants.get(name))
        return tensors_of(list(self.run(*given)))

    def run_node(self, n: Node) -> Any:
        """One operation, with what it sums over masked."""
        if n.name not in self.at:
            return super().run_node(n)
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        flat = list(args)
        for one in self.at[n.name]:
            if name_of(n) == "einsum":
                values = list(flat[1])
                values[one.operand] = self._masked(values[one.operand], one)
                flat[1] = values
            else:
                flat[one.operand] = self._masked(flat[one.operand], one)
        return getattr(self, n.op)(n.target, tuple(flat), kwargs)

    def _masked(self, value: Tensor, one: Contraction) -> Tensor:
        assert self.removal is not None
        label = one.label
        if (
            name_of(one.node) == "scaled_dot_product_attention"
            and label.shape[-3:-2] != value.shape[-3:-2]
            and label.shape[-3] > 1
        ):
            label = label[..., :: label.shape[-3] // value.shape[-3], :, :]
        stays = self.removal.stays(label)
        return value * stays.to(value)


def lively(network: nn.Module) -> nn.Module:
    """A copy whose constant parameters (ones, zeros, tiny scales) are drawn anew, so that every unit has an effect."""
    copied = copy.deepcopy(network)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in copied.parameters():
            if parameter.is_floating_point() and parameter.numel() > 1:
                values = parameter.float()
                if (
                    float(values.std()) <= 1e-3 * max(1e-3, float(values.abs().max()))
                    or float(values.abs().max()) < 1e-3
                ):
                    parameter.copy_(0.5 + torch.rand(parameter.shape, generator=generator).to(parameter))
    return copied


def named_tensors(network: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name."""
    pairs = [*network.named_parameters(remove_duplicate=False), *network.named_buffers(remove_duplicate=False)]
    return dict(pairs)


def prove(
    network: nn.Module, removal: Removal, whole: list[Tensor] | None = None, likely: Iterable[Setting] = ()
) -> Proof:
    """Whether a network in eval mode without the units of `removal` computes what it does with them at zero.

    `network` should be `lively`. Where its code holds numbers that do not fit, attributes with these are tried: those
    alike in modules alike to `likely` first, which were needed for parts of the removal.
    """
    program, tensors = removal.labelled.program, named_tensors(network)
    wanted = Masked(program, tensors, removal).outputs()
    whole = whole if whole is not None else Masked(program, tensors).outputs()
    found = candidates(network, removal)
    effect = _difference(whole, wanted)
    failure, best = "", float("inf")
    known = {_kind(one) for one in likely}
    for settings in dict.fromkeys([tuple(one for one in found if _kind(one) in known), *_choices(found)]):
        try:
            outputs = run(narrow(network, removal, list(settings), share=True), program)
        except Exception as error:  # a network's own code may raise anything
            failure = failure or _told(error)
            continue
        if [one.shape for one in outputs] != [one.shape for one in wanted]:
            failure = failure or "the outputs change their shape"
            continue
        best = min(best, _difference(wanted, outputs))
        if best <= min(TOLERANCE, max(SHARE * effect, 1e-5)):
            return Proof(best, tuple(settings))
    if best < float("inf"):
        failure = f"without them it computes something else (by {best:.1e} of its largest output)"
    return Proof(best, (), failure)


def _kind(setting: Setting) -> tuple[Any, ...]:
    """What settings of layers alike have in common: all but the numbers in their paths."""
    return (*_without_numbers(setting.module), setting.attribute, setting.before, setting.after)


def _without_numbers(path: str) -> list[str]:
    return [part for part in path.split(".") if not part.isdigit()]


def _choices(found: list[Setting]) -> list[tuple[Setting, ...]]:
    """None, all candidates, then parts of them."""
    kinds = list(dict.fromkeys((one.attribute, one.before, one.after) for one in found))
    chosen = [(), tuple(kinds)]
    if len(kinds) <= MOST_TRIED:
        chosen += [some for size in range(len(kinds) - 1, 0, -1) for some in combinations(kinds, size)]
    chosen = list(dict.fromkeys(chosen))
    return [tuple(one for one in found if (one.attribute, one.before, one.after) in some) for some in chosen]


@torch.no_grad()
def run(network: nn.Module, program: Program) -> list[Tensor]:
    """What a network gives for the program's example inputs."""
    args, kwargs = tree_map(lambda one: one.clone() if isinstance(one, Tensor) else one, program.arguments)
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        return tensors_of(network(*args, **kwargs))
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def _difference(one: list[Tensor], other: list[Tensor]) -> float:
    """Largest difference, each output relative to its largest value; infinite where something is not finite."""
    worst = 0.0
    for a, b in zip(one, other, strict=True):
        if a.is_floating_point() and a.numel():
            found = float((a.double() - b.double()).abs().max()) / max(float(a.double().abs().max()), 1e-30)
            worst = max(worst, found if found == found else float("inf"))
    return worst


def _told(error: Exception) -> str:
    """What stopped a smaller network: the line of its own code, and what that says."""
    frames = [one for one in traceback.extract_tb(error.__traceback__) if "/torch/" not in one.filename]
    own = [one for one in frames if "/paramtrans/networks/" not in one.filename]
    where = f" ({own[-1].filename.rsplit('/', 1)[-1]}:{own[-1].lineno}: {own[-1].line})" if own else ""
    reason = str(error).partition("\n")[0][:160]
    return f"the code around it takes no other number of units{where}: {type(error).__name__}: {reason}"
