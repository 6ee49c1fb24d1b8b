"""Blocks left out of a network: taken out of their lists where its code allows that, else passed by in their place."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from paramtrans.api.architecture import ArchitectureSource
from paramtrans.errors import ParamtransError, SpecMismatch
from paramtrans.evaluation.costs import parameters
from paramtrans.networks.blocks.finding import alike
from paramtrans.networks.depth.cheapest import standing_in
from paramtrans.networks.forward.activations import Inputs, call, every_layer, first_examples
from paramtrans.networks.forward.outputs import tensors_in
from paramtrans.networks.loading.wrappers import computed_tensors
from paramtrans.networks.parts.finding import NetworkPart
from paramtrans.networks.parts.placed import Calling, Placed, put_part
from paramtrans.networks.parts.running import split_output
from paramtrans.ops.distances import RelativeError
from paramtrans.plugins.registry import Registry
from paramtrans.utils.boundary import reason

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LeftOut:
    """A block that a translated network does without."""

    path: str
    """Its path as it was before it went; those behind it in its list may have moved up since."""
    kind: str
    """Class of the module that it was."""
    parameters: tuple[int, int]
    """Before and after."""
    beside: int | None
    """How many `None` it gave beside its features, in a tuple; None: the features alone."""
    taken_out: bool
    """Whether its list is shorter now; else a module in its place hands on what it gets."""
    feature_error: float | None = None
    """Mean squared difference of what now goes on from here and what left the block, over the variance of that, on
    inputs kept aside and without all other blocks that went."""
    held_out: bool | None = None
    """Whether that is so; else the inputs were too few."""


class Nothing(nn.Module):
    """What a block gives that its network adds to a stream, once it is gone."""

    def forward(self, features: Tensor) -> Tensor:
        """Features → zeros of their shape."""
        return torch.zeros_like(features)


def stand_ins(
    network: nn.Module, parts: Sequence[NetworkPart], batch: Inputs, registry: Registry
) -> dict[str, nn.Module]:
    """By path what computes, in a block's place, what the network computes without it.

    A block hands on what it gets; or it gives nothing, where that alone is the same as a shorter list, as in networks
    that add what a block gives to what it got.

    Args:
        network: In eval mode; it is as before afterwards.
        parts: The blocks.
        batch: Inputs; the network is run on two of them.
        registry: Architecture sources that are asked to let numbers follow.
    """
    batch, chosen = first_examples(batch, 2), dict[str, nn.Module]()
    for _, of_list in groupby(parts, key=lambda part: part.part.path.rpartition(".")[0]):
        blocks = list(of_list)
        record = _record(blocks[0], True, None, False)
        kinds = [
            kind
            for kind in (nn.Identity, Nothing)
            if _unlike(network, {record.path: _standing_for(blocks[0], kind)}, [record], batch, registry) is None
        ]
        chosen |= {block.part.path: _standing_for(block, (kinds or [nn.Identity])[0]) for block in blocks}
    return chosen


def leave_out(
    network: nn.Module,
    parts: Sequence[NetworkPart],
    instead: Mapping[str, nn.Module],
    batch: Inputs,
    errors: Mapping[str, float | None],
    held_out: bool,
    registry: Registry,
) -> tuple[nn.Module, list[LeftOut]]:
    """A copy of a network without some of its blocks.

    A list becomes shorter where the network then gives what it gives with the stand-ins; else a module stands in the
    place of each that hands on what it gets.

    Args:
        network: In eval mode; it is as before afterwards.
        parts: The blocks.
        instead: `stand_ins` of these.
        batch: Inputs; the network is run on two of them.
        errors: `feature_errors` of the blocks.
        held_out: Whether these are of inputs kept aside.
        registry: Architecture sources that are asked to let numbers follow.

    Returns:
        The copy, and records in an order in which `repeat` leaves them out again: the last of a list first.

    Raises:
        SpecMismatch: the network's code does not do without these blocks.
    """
    batch, order = first_examples(batch, 2), [path for path, _ in network.named_modules()]
    described = sorted(
        ((part, errors[part.part.path]) for part in parts), key=lambda pair: -order.index(pair[0].part.path)
    )
    records: list[LeftOut] = []
    for _, of_list in groupby(described, key=lambda pair: pair[0].part.path.rpartition(".")[0]):
        pairs = list(of_list)
        tried = [_record(part, True, error, held_out) for part, error in pairs]
        why = _unlike(network, {part.part.path: instead[part.part.path] for part, _ in pairs}, tried, batch, registry)
        if why is not None:
            log.info("%s: blocks are passed by in their places: %s", pairs[0][0].part.path, why)
        records += tried if why is None else [_record(part, False, error, held_out) for part, error in pairs]
    if (why := _unlike(network, instead, records, batch, registry)) is not None:
        raise SpecMismatch(f"depth: the network's code does not do without {records[0].path}: {why}")
    shorter = copy.deepcopy(network)
    repeat(shorter, records, registry)
    return shorter, records


@torch.no_grad()
def _unlike(
    network: nn.Module,
    instead: Mapping[str, nn.Module],
    records: Sequence[LeftOut],
    batch: Inputs,
    registry: Registry,
) -> str | None:
    """Why a network does not do as records say: it gives something else than with the stand-ins; or None."""
    with standing_in(network, instead):
        wanted = tensors_in(call(network, batch))
    try:
        given = tensors_in(call(without(network, records, registry), batch))
    except (ParamtransError, AttributeError, LookupError) as error:
        return reason(error)
    same = len(given) == len(wanted) and all(map(alike, given, wanted))
    return None if same else "it gives something else than with them passed by"


def _record(part: NetworkPart, taken_out: bool, error: float | None, held_out: bool) -> LeftOut:
    module = part.part.module
    sizes = (parameters(module), 0)
    return LeftOut(part.part.path, type(module).__name__, sizes, part.calling.beside, taken_out, error, held_out)


def _standing_for(part: NetworkPart, kind: type[nn.Module]) -> nn.Module:
    return Placed(kind(), Calling(False, part.calling.beside)).eval()


def feature_errors(
    network: nn.Module, instead: Mapping[str, nn.Module], batches: Iterable[Inputs]
) -> dict[str, float | None]:
    """By path the relative error of the features behind each of some blocks, without all of them.

    Args:
        network: In eval mode; it is as before afterwards.
        instead: `stand_ins` of the blocks. Behind those that give nothing there are no features to compare: None.
        batches: Inputs.

    Raises:
        SpecMismatch: a batch does not reach a block.
    """
    errors = {path: RelativeError() for path in instead}
    for batch in batches:
        wanted = _leaving(network, errors, batch)
        with standing_in(network, instead):
            given = _leaving(network, errors, batch)
        for path, error in errors.items():
            error.add(given[path], wanted[path])
    adding = {path for path, block in instead.items() if any(isinstance(inner, Nothing) for inner in block.children())}
    return {path: None if path in adding else error.value for path, error in errors.items()}


@torch.no_grad()
def _leaving(network: nn.Module, paths: Iterable[str], batch: Inputs) -> dict[str, Tensor]:
    """The features behind some modules in one pass."""
    leaving: dict[str, Tensor] = {}

    def note(path: str) -> Any:
        def look(_: nn.Module, __: Any, output: Any) -> None:
            features = split_output(output)[0]
            assert features is not None
            leaving[path] = features.clone()  # some modules write to what enters them

        return look

    with every_layer([network.get_submodule(path).register_forward_hook(note(path)) for path in paths]):
        call(network, batch)
    if missing := {*paths} - leaving.keys():
        raise SpecMismatch(f"{min(missing)} is not reached by every calibration batch, so it cannot be left out")
    return leaving


def repeat(network: nn.Module, records: Iterable[LeftOut], registry: Registry) -> None:
    """Leave out of a network what records say.

    Args:
        network: Is changed.
        records: In the order in which blocks go.
        registry: Architecture sources that are asked to let numbers follow.

    Raises:
        AttributeError: there is no such block.
    """
    for record in records:
        if record.taken_out:
            _take_out(network, record.path, registry)
        else:
            put_part(network, record.path, nn.Identity(), Calling(record.beside is None, record.beside))


def without(network: nn.Module, records: Iterable[LeftOut], registry: Registry) -> nn.Module:
    """A copy of a network that shares its tensors, without some blocks; arguments as for `repeat`."""
    tensors = [*network.parameters(), *network.buffers()]
    copied = copy.deepcopy(network, {**computed_tensors(network), **{id(tensor): tensor for tensor in tensors}})
    repeat(copied, records, registry)
    return copied


def _take_out(network: nn.Module, path: str, registry: Registry) -> None:
    """Take a module out of its list; those behind it move up, with all numbers that count along the list."""
    parent_path, _, name = path.rpartition(".")
    parent = network.get_submodule(parent_path)
    if name not in parent._modules:
        raise AttributeError(f"there is no module {path!r} to leave out")
    names, counters = list(parent._modules), _counters(parent)
    remaining = [module for other, module in parent._modules.items() if other != name]
    numbered = names == [str(number) for number in range(len(names))]
    new_names = names[:-1] if numbered else [other for other in names if other != name]
    parent._modules = dict(zip(new_names, remaining, strict=True))
    for number, block in enumerate(parent.children()):
        for inner_path, inner in block.named_modules():
            for attribute in {*vars(inner)}.intersection(counters.get(inner_path, ())):
                setattr(inner, attribute, number)
    for source_name, _ in registry.usable("architecture"):
        source: ArchitectureSource = registry.create("architecture", source_name)
        source.shortened(network, parent_path, names.index(name))


def _counters(parent: nn.Module) -> dict[str, list[str]]:
    """Attributes in which blocks of a list keep their number in it: names, by the path inside the block."""
    equal: dict[tuple[str, str], bool] = {}
    for number, block in enumerate(parent.children()):
        for inner_path, inner in block.named_modules():
            for attribute, value in vars(inner).items():
                if type(value) is int:
                    equal[inner_path, attribute] = equal.get((inner_path, attribute), True) and value == number
    paths = {inner_path for inner_path, _ in equal}
    return {path: [name for (of, name), is_equal in equal.items() if of == path and is_equal] for path in paths}
