"""Networks made smaller by groups of units that their graph shows, whatever their layers are called."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from paramtrans.api.options import BaseOptions, validate
from paramtrans.api.units import UnitCase
from paramtrans.errors import DataError, SpecMismatch
from paramtrans.evaluation.costs import count as count_operations, parameters
from paramtrans.networks.activations import Inputs, arguments, call, first_examples
from paramtrans.networks.blocks import matches
from paramtrans.networks.examples import Examples
from paramtrans.networks.graph.groups import Analysis, NamedGroup, Proven, analyse, prove_groups
from paramtrans.networks.graph.narrow import Setting, changed_numbers, narrow
from paramtrans.networks.graph.proof import lively, prove
from paramtrans.networks.graph.reconstruct import reconstruct
from paramtrans.networks.graph.unit_cases import choose_units
from paramtrans.networks.widths import Budget, FlopBudget, Ratio, largest
from paramtrans.plugins.registry import Registry
from paramtrans.utils.progress import Reporter

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class NarrowedGroup:
    """A group of units of which a translated network has fewer."""

    path: str
    kind: str
    """`units`, or `groups` where each has several rows of a layer (heads)."""
    units: tuple[int, int]
    """How many there were, and are."""
    parameters: tuple[int, int]
    """Values of the tensors that they stand in, before and after."""
    feature_error: float | None = None
    """Relative reconstruction error: the mean squared change of what the layers give that read the units, over its
    variance, on examples that nothing was fitted to, behind all that was translated before; 1 is as bad as a constant.
    None: without inputs."""
    held_out: bool | None = None
    """Whether that is so; else the examples were too few. None: without inputs, or not known."""


@dataclass(frozen=True)
class NarrowedNetwork:
    """A smaller network, and what is to be said of it."""

    network: nn.Module
    groups: tuple[NarrowedGroup, ...]
    settings: tuple[Setting, ...]
    """Numbers that layers and modules hold, which are others now."""
    output_error: float | None
    """The relative error of the network's first output, on the same examples."""
    refused: Mapping[str, str]
    """Groups that stay as they are, with the reason of each."""


def suits(names: Sequence[str], registry: Registry) -> bool:
    """Whether these translators all choose units of any network."""
    return all(registry.load("translator", name).keeps_units for name in names)


def example_arguments(batch: Inputs) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What a network is called with for two examples of a batch, on the CPU or where the batch is."""
    return arguments(first_examples(batch, 2))


def narrow_network(
    network: nn.Module,
    translator: str,
    options: Mapping[str, Any],
    registry: Registry,
    *,
    widths: Any,
    blocks: str,
    batches: Iterable[Inputs],
    seed: int,
    reporter: Reporter,
) -> NarrowedNetwork:
    """A copy of `network`, which is in eval mode, with fewer units in all groups whose path matches `blocks`.

    Args:
        network: Any network that `torch.export` can follow.
        translator: Name of one that chooses units; where it says so, what reads them is solved for.
        options: Its options.
        registry: Where it is known.
        widths: A rule for how many units stay.
        blocks: Patterns of paths, between commas.
        batches: Calibration inputs, at least one.
        seed: For whatever is drawn.
        reporter: Is told of the progress.

    Raises:
        SpecMismatch: no group can be made smaller as asked, or the network cannot be followed.
    """
    kept_batches = list(batches)
    analysis = analyse(network, example_arguments(kept_batches[0]))
    chosen = select(analysis, blocks)
    counts = {
        group: count for group, count in sizes(widths, analysis, chosen, kept_batches).items() if count < len(group)
    }
    if not counts:
        raise SpecMismatch("nothing becomes smaller with these widths; give a smaller ratio")
    proven = prove_groups(analysis, counts)
    for path, reason in proven.refused.items():
        log.warning("%s stays as it is: %s", path or "the network", reason)
    if not proven.counts:
        reasons = "; ".join(f"{path}: {reason}" for path, reason in list(proven.refused.items())[:3])
        raise SpecMismatch(f"none of its {len(counts)} groups of units can be made smaller: {reasons}")
    component = registry.load("translator", translator)
    settled: BaseOptions = validate(component.Options, dict(options), f"translator {translator}: ")
    examples = Examples(kept_batches)

    def choose(case: UnitCase) -> Tensor:
        return component.keep(settled, case)  # type: ignore[no-any-return]

    count = f"{len(proven.counts)} group{'' if len(proven.counts) == 1 else 's'} of units"
    with reporter.stage(
        f"translating {count}", len({one.weight for group in proven.counts for one in group.readers})
    ) as stage:
        looks = examples if component.needs_probes else None
        kept = choose_units(analysis, proven.counts, choose, looks, seed)
        if (failure := prove(lively(network), analysis.removal(kept)).failure) is not None:
            raise SpecMismatch(f"the units that {translator} keeps cannot be kept alone: {failure}")
        made = reconstruct(
            analysis,
            kept,
            proven.settings,
            examples,
            component.solves_readers,
            getattr(settled, "ridge", None),
            seed,
            lambda path: stage.advance(note=path),
        )
    before, after = (dict(one.named_parameters(remove_duplicate=False)) for one in (network, made.network))
    held_out = examples.enough or not (component.needs_probes or component.solves_readers)
    if not held_out:
        log.warning(examples.too_few())
    groups = tuple(
        replace(_described(group, proven, made.errors, before, after), held_out=held_out) for group in proven.counts
    )
    settings = tuple(changed_numbers(network, made.network))
    return NarrowedNetwork(made.network, groups, settings, made.output, proven.refused)


def select(analysis: Analysis, pattern: str) -> list[NamedGroup]:
    """The groups that are made smaller unless said otherwise: hidden units, and whole heads, whose path matches.

    Raises `SpecMismatch` where there are none.
    """
    free = [group for group in analysis.groups if not group.stream and not group.inner]
    found = [group for group in free if matches(group.path, pattern)]
    if found:
        return found
    if free:
        paths = ", ".join(f'"{group.path}"' for group in free[:8])
        more = f" and {len(free) - 8} more" if len(free) > 8 else ""
        raise SpecMismatch(f'no group of units has a path that matches "{pattern}"; there are {paths}{more}')
    stopped = [f"{name} ({where})" if where else name for name, where in analysis.unknown().items()]
    why = f"; labels ended at {', '.join(stopped[:3])}" if stopped else ""
    kind = type(analysis.network).__name__
    raise SpecMismatch(
        f"no adapter knows a block of this {kind}, and its graph shows no hidden units to leave out{why}"
    )


def sizes(
    widths: Any, analysis: Analysis, groups: Sequence[NamedGroup], batches: Sequence[Inputs]
) -> dict[NamedGroup, int]:
    """How many units of each group stay, by a rule for widths."""
    if isinstance(widths, Ratio):
        for pattern in widths.ratio if isinstance(widths.ratio, Mapping) else ():
            if not any(matches(group.path, pattern) for group in groups):
                paths = ", ".join(f'"{group.path}"' for group in groups[:8])
                raise SpecMismatch(f'ratio: no block has a path that matches "{pattern}"; there are {paths}')
        return {group: group.units.allowed(round(len(group) * _share(widths, group))) for group in groups}

    def at(ratio: float) -> dict[NamedGroup, int]:
        return {group: group.units.allowed(max(1, round(len(group) * ratio))) for group in groups}

    if isinstance(widths, Budget):
        goal, what, cost = widths.parameters, "parameters", _parameters(analysis)
    elif isinstance(widths, FlopBudget):
        goal, what, cost = widths.flops, "operations", _operations(analysis, batches[0])
    else:
        raise SpecMismatch(f"{type(widths).__name__} is a rule for blocks of adapters, not for groups of units")
    ratio = largest(lambda share: cost(at(share)) <= goal, steps=12)
    if ratio is None:
        raise SpecMismatch(
            f"a network of {goal:,} {what} cannot be made of this one: with one unit in every group "
            f"{cost(at(1e-9)):,} are left"
        )
    return at(ratio)


def _share(widths: Ratio, group: NamedGroup) -> float:
    rules = widths.ratio if isinstance(widths.ratio, Mapping) else {"*": widths.ratio}
    ratio = next((value for pattern, value in rules.items() if matches(group.path, pattern)), 1.0)
    if isinstance(ratio, bool) or not isinstance(ratio, (int, float)) or not 0 < ratio <= 1:
        raise SpecMismatch(f"ratio: {ratio!r} is no share of the hidden units; give a number above 0, up to 1")
    return float(ratio)


Cost = Callable[[Mapping[NamedGroup, int]], int]


def _parameters(analysis: Analysis) -> Cost:
    """Parameters of the network with as many units of each group."""
    whole = parameters(analysis.network)
    shapes = {name: list(one.shape) for name, one in analysis.network.named_parameters()}

    def cost(counts: Mapping[NamedGroup, int]) -> int:
        left = {name: list(shape) for name, shape in shapes.items()}
        for group, count in counts.items():
            for axis in group.units.axes:
                if axis.tensor in left:
                    left[axis.tensor][axis.axis] -= (len(group) - count) * axis.indices.shape[1]
        saved = sum(_product(shapes[name]) - _product(left[name]) for name in shapes)
        return whole - saved

    return cost


def _operations(analysis: Analysis, batch: Inputs) -> Cost:
    """Operations that one example takes with as many units of each group, as PyTorch counts them."""

    def cost(counts: Mapping[NamedGroup, int]) -> int:
        kept = {group: group.units.choose(torch.zeros(len(group)), count) for group, count in counts.items()}
        proven = prove_groups(analysis, {group: count for group, count in counts.items() if count < len(group)})
        small = narrow(analysis.network, analysis.removal({g: kept[g] for g in proven.counts}), list(proven.settings))
        with torch.no_grad():
            return count_operations(lambda: call(small, first_examples(batch, 1)))

    return cost


def _product(shape: Sequence[int]) -> int:
    return int(torch.Size(shape).numel())


def _described(
    group: NamedGroup,
    proven: Proven,
    errors: Mapping[str, float],
    before: Mapping[str, Tensor],
    after: Mapping[str, Tensor],
) -> NarrowedGroup:
    own = [errors[layer.weight] for layer in group.readers if layer.weight in errors]
    names = [name for name in group.units.tensors if name in before]
    counted = tuple(sum(tensors[name].numel() for name in names) for tensors in (before, after))
    units = (len(group), proven.counts[group])
    return NarrowedGroup(group.path, group.kind, units, (counted[0], counted[1]), max(own) if own else None)


def rebuild(network: nn.Module, settings: Iterable[Setting], params: Mapping[str, Tensor]) -> None:
    """Give a fresh network the numbers and the sizes of tensors of a smaller one, in place; raises `DataError` for
    what no translated network can be: tensors or numbers larger than the network's own, or of other kinds."""
    for setting in settings:
        try:
            module = network.get_submodule(setting.module)
        except AttributeError as error:
            raise DataError(f"there is no module {setting.module!r} in this network") from error
        own = vars(module).get(setting.attribute)
        if type(own) is not type(setting.after) or own is None or not _smaller(setting.after, own):
            raise DataError(f"{setting.module}.{setting.attribute}: {setting.after!r} takes the place of {own!r}")
        setattr(module, setting.attribute, setting.after)
    made: dict[int, Tensor] = {}
    for path, module in network.named_modules(remove_duplicate=False):
        for slots in (module._parameters, module._buffers):
            for name, tensor in slots.items():
                wanted = params.get(f"{path}.{name}".lstrip("."))
                if tensor is None or wanted is None or wanted.shape == tensor.shape:
                    continue
                if wanted.ndim != tensor.ndim or any(a > b for a, b in zip(wanted.shape, tensor.shape, strict=True)):
                    raise DataError(f"{path}.{name} is {list(wanted.shape)}, larger than {list(tensor.shape)}")
                if id(tensor) not in made:
                    empty = tensor.detach().new_empty(wanted.shape)
                    trained = isinstance(tensor, nn.Parameter)
                    made[id(tensor)] = nn.Parameter(empty, tensor.requires_grad) if trained else empty
                slots[name] = made[id(tensor)]


def _smaller(after: int | tuple[int, ...], before: Any) -> bool:
    """Whether a number, or a list of numbers, is positive and no larger than another."""
    if isinstance(after, int):
        return bool(0 < after <= before)
    if len(after) != len(before):
        return False
    return all(type(one) is int and 0 < one <= other for one, other in zip(after, before, strict=True))
