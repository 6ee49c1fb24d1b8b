"""Parts of a network that a block of another architecture can replace: modules with one tensor in and one out."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from paramtrans.api.adapter import Part
from paramtrans.errors import SpecMismatch
from paramtrans.networks.blocks.finding import matches
from paramtrans.networks.forward.activations import Inputs, Reached, call, every_layer, first_examples, length
from paramtrans.networks.parts.placed import Calling, put_part, tensors_beside
from paramtrans.networks.parts.running import PartRun, feature_of, split_output

EXAMPLES = 2
"""Examples that parts are looked for with."""
NOT_BY_EXAMPLE = (
    "the first axis of its features is not that of the examples, so that none could be kept aside; replace a part "
    "around it, or let the network keep examples first (batch_first=True)"
)
"""Why a part with positions first, or with windows and examples in one axis, is not replaced."""


@dataclass(frozen=True)
class Call:
    """One call of a module in a pass of its network."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    entering: Tensor | None
    leaving: Tensor | None
    calling: Calling


@dataclass(frozen=True)
class NetworkPart:
    """A part, and how its network calls it."""

    part: Part
    pattern: str
    """The pattern that chose it."""
    calling: Calling

    def put(self, network: nn.Module, block: nn.Module) -> None:
        """Put a block in the part's place in a network."""
        put_part(network, self.part.path, block, self.calling)


@torch.no_grad()
def find_parts(
    network: nn.Module, patterns: Iterable[str], batch: Inputs, nested: bool = False, by_example: bool = True
) -> tuple[list[NetworkPart], dict[str, str]]:
    """The outermost modules whose path matches a pattern, in the order in which they run.

    Args:
        network: A network in eval mode.
        patterns: Of paths; the first that matches a path counts.
        batch: Inputs, of which `EXAMPLES` are used.
        nested: Whether modules inside others are parts too.
        by_example: Whether features need examples on their first axis, as what is fitted does.

    Returns:
        The parts, and by path the reason why a module that a pattern names is none.

    Raises:
        SpecMismatch: a pattern matches no module.
    """
    patterns = list(patterns)
    chosen = _chosen(network, patterns, nested)
    calls, order = _calls(network, chosen, batch)
    parts, refused = list[NetworkPart](), dict[str, str]()
    examples = length(first_examples(batch, EXAMPLES)) if by_example else None
    for path in sorted(chosen, key=lambda path: order.index(path) if path in order else -1):
        if (reason := _no_part(calls.get(path, []), examples)) is not None:
            refused[path] = reason
            continue
        [module_call] = calls[path]
        assert module_call.entering is not None and module_call.leaving is not None
        module = network.get_submodule(path)
        run = PartRun(module, module_call.args, module_call.kwargs)
        part = Part(path, module, module_call.entering, module_call.leaving, run)
        parts.append(NetworkPart(part, chosen[path], replace(module_call.calling, cache=run.cache_layer())))
    return parts, refused


def _chosen(network: nn.Module, patterns: list[str], nested: bool) -> dict[str, str]:
    """Paths of modules, each with the pattern that it matches; none inside another unless `nested`."""
    chosen: dict[str, str] = {}
    for path, _ in network.named_modules():
        inside = any(path.startswith(f"{outer}.") for outer in chosen)
        pattern = next((pattern for pattern in patterns if path and matches(path, pattern)), None)
        if pattern is not None and (nested or not inside):
            chosen[path] = pattern
    for pattern in patterns:
        if pattern not in chosen.values():
            taken = [path for path, _ in network.named_modules() if path and matches(path, pattern)]
            if taken:
                raise SpecMismatch(
                    f'to: all that "{pattern}" matches, such as {taken[0]}, belongs to a pattern before it or stands '
                    "inside a part of one; name the narrower pattern first"
                )
            paths = [path for path, _ in network.named_modules() if path.count(".") < 3][1:]
            raise SpecMismatch(f'to: no module has a path that matches "{pattern}"; there are {", ".join(paths[:8])} …')
    return chosen


def _calls(network: nn.Module, paths: Iterable[str], batch: Inputs) -> tuple[dict[str, list[Call]], list[str]]:
    """How modules are called in a pass on a few examples, and the order in which they begin."""
    calls, order = dict[str, list[Call]](), list[str]()

    def begin(path: str) -> Any:
        def look(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            order.append(path)
            entered = feature_of(args, kwargs)
            alone = len(args) == 1 and not kwargs
            calling = Calling(alone, None, tensors=tensors_beside(args, kwargs))
            calls.setdefault(path, []).append(
                Call(*copy.deepcopy((args, kwargs)), None if entered is None else entered.clone(), None, calling)
            )

        return look

    def end(path: str) -> Any:
        def look(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            leaving, beside = split_output(output)
            leaving = None if leaving is None else leaving.clone()
            calling = replace(calls[path][-1].calling, beside=beside)
            calls[path][-1] = replace(calls[path][-1], leaving=leaving, calling=calling)

        return look

    handles = []
    for path in paths:
        module = network.get_submodule(path)
        handles.append(module.register_forward_pre_hook(begin(path), with_kwargs=True))
        handles.append(module.register_forward_hook(end(path), with_kwargs=True))
    with every_layer(handles):
        call(network, first_examples(batch, EXAMPLES))
    return calls, order


def _no_part(calls: list[Call], examples: int | None) -> str | None:
    """Why a module that was called like this, in a run of so many examples (None: of any), is no part, or None."""
    if len(calls) != 1:
        return f"it is passed {len(calls)} times in a run of the network, not once"
    [module_call] = calls
    if module_call.entering is None:
        return "no features enter it"
    if module_call.leaving is None:
        return "it gives more than one tensor"
    if (
        module_call.entering.ndim < 2
        or module_call.leaving.ndim < 2
        or len(module_call.entering) != len(module_call.leaving)
    ):
        shapes = f"{list(module_call.leaving.shape)} of {list(module_call.entering.shape)}"
        return f"it makes {shapes}, which are no features of examples"
    if examples is not None and len(module_call.entering) != examples:
        return NOT_BY_EXAMPLE
    return None


@torch.no_grad()
def seen_on(part: Part, network: nn.Module, batch: Inputs) -> Part:
    """The part with the features of all examples of a batch; the network is run up to there and no further.

    Args:
        part: The part.
        network: Where it stands, in eval mode.
        batch: Inputs of the network.

    Raises:
        SpecMismatch: the batch does not reach the part.
    """
    seen: dict[str, Tensor] = {}

    def note(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen["entering"] = feature_of(args, kwargs).clone()  # type: ignore[union-attr]

    def stop(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        seen["leaving"] = split_output(output)[0]  # type: ignore[assignment]
        raise Reached

    module = network.get_submodule(part.path)
    handles = [
        module.register_forward_pre_hook(note, with_kwargs=True),
        module.register_forward_hook(stop, with_kwargs=True),
    ]
    with every_layer(handles):
        try:
            call(network, batch)
        except Reached:
            return replace(part, entering=seen["entering"], leaving=seen["leaving"])
    raise SpecMismatch(f"{part.path} is not reached by every calibration batch, so it cannot be replaced")
