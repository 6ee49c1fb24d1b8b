"""Networks of image libraries made smaller, as their own classes build them: by other arguments of the class.

Nothing is known of an architecture: of the numbers that its class was given, those are tried that follow the sizes.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from itertools import combinations
from typing import Any

import torch
from torch import nn

from paramtrans_architectures.alike import Outputs, changed_sizes, first_alike

NO_ARGUMENTS = (
    "--stock: no arguments of {} give these sizes{{}}; give all blocks the same ratio (with --stream also --ratio, the "
    "same), leave out what is tied to others (--blocks), or use paramtrans.load_translated"
)
"""What is said where there are none, with the class and what is nearest."""
MOST_CHANGES = 12
"""Arguments with values that are tried, in all combinations of up to three."""


def arguments_of(build: Callable[[], nn.Module]) -> tuple[nn.Module, dict[str, Any]]:
    """A network on the meta device, and what its class was called with, defaults included."""
    with torch.device("meta"):
        kind = type(build())
    original, calls, inherited = kind.__init__, list[dict[str, Any]](), "__init__" not in vars(kind)
    signature = inspect.signature(original)

    def recording(self: nn.Module, *args: Any, **kwargs: Any) -> None:
        if type(self) is kind and not calls:
            bound = signature.bind(self, *args, **kwargs)
            bound.apply_defaults()
            calls.append(_by_name(bound))
        original(self, *args, **kwargs)

    kind.__init__ = recording  # type: ignore[method-assign]
    try:
        with torch.device("meta"):
            network = build()
    finally:
        if inherited:
            del kind.__init__
        else:
            kind.__init__ = original  # type: ignore[method-assign]
    return network, calls[0]


def _by_name(bound: inspect.BoundArguments) -> dict[str, Any]:
    """Arguments of a method but its first; those that it takes by any name stand among the others."""
    named: dict[str, Any] = {}
    for name, value in list(bound.arguments.items())[1:]:
        named |= value if bound.signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD else {name: value}
    return named


def find_changes(
    network: nn.Module,
    fresh: Callable[[], nn.Module],
    build: Callable[[Mapping[str, Any]], nn.Module],
    outputs: Outputs,
) -> dict[str, Any]:
    """The arguments that are others in a smaller network that its class builds equal to a given one.

    Args:
        network: The smaller network.
        fresh: Builds the network as it was before.
        build: Builds one with some arguments changed.
        outputs: What a network gives for a few inputs.

    Raises:
        ConfigError: none are.
    """
    before, arguments = arguments_of(fresh)
    recipes = _recipes(arguments, changed_sizes(before, network))
    return dict(first_alike(network, recipes, build, outputs, NO_ARGUMENTS.format(type(before).__name__))[0])


def _recipes(arguments: Mapping[str, Any], sizes: list[tuple[int, int]]) -> Iterator[Mapping[str, Any]]:
    """Numbers among the arguments that change as sizes did, in combinations, fewest first."""
    numbers = {name: value for name, value in arguments.items() if type(value) in (int, float) and value}
    ratios = list(dict.fromkeys(new / old for old, new in sizes))
    changes = [(name, _as_whole(value * ratio)) for ratio in ratios for name, value in numbers.items()][:MOST_CHANGES]
    for count in range(4):
        for chosen in combinations(changes, count):
            if len({name for name, _ in chosen}) == count:
                yield dict(chosen)


def _as_whole(number: float) -> int | float:
    """An integer where it is one: some classes take no other number."""
    return int(number) if number.is_integer() else number
