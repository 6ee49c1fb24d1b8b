"""What `translate` is asked for, held to what it takes before any work is done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paramtrans.errors import SpecMismatch
from paramtrans.networks.finishing import FinishOptions, finish_options
from paramtrans.networks.units.selection import Asked
from paramtrans.networks.widths import Ratio, Widths, with_registry
from paramtrans.plugins.registry import Registry
from paramtrans.utils.progress import Reporter

TRANSLATOR, RATIO = "refit", 0.5
"""By default."""

KINDS: dict[str, tuple[Any, str]] = {
    "translator": (str | Path, 'a name or a folder, as in translator="refit"'),
    "depth": (int | float | None, "a share of the blocks, as in depth=0.75"),
    "rotate": (bool, "True or False"),
    "blocks": (str, 'a pattern of paths, as in blocks="layer1.*"'),
    "options": (Mapping | None, 'options by name, as in options={"units": "norm"}'),
    "then": (Mapping | None, 'options by translator, as in then={"matching": {}}'),
    "to": (Mapping | None, 'targets by pattern of paths, as in to={"layer1.*": "bottleneck"}'),
    "finish": (int | Mapping | None, "a number of steps, or options, as in finish=300"),
    "sequential": (bool, "True or False"),
    "distributed": (bool, "True or False"),
    "seed": (int, "a whole number"),
    "reporter": (Reporter, "a Reporter, as in reporter=ConsoleReporter()"),
    "registry": (Registry, "a Registry, as in registry=components()"),
}
"""For each argument, what it may be, and in words."""

SHARES = {"stream": "a stream's width", "query_key": "the dimensions of queries and keys"}
"""What shares are of."""


@dataclass(frozen=True)
class Request:
    """The arguments of `translate` that say what to do; it says what each means."""

    translator: str | Path
    ratio: float | Mapping[str, float] | None
    widths: Widths | None
    depth: float | None
    stream: float | None
    rotate: bool
    query_key: float | None
    blocks: str
    options: Mapping[str, Any]
    then: Mapping[str, Mapping[str, Any]]
    to: Mapping[str, str] | None
    finish: FinishOptions | None
    sequential: bool
    by: str | None
    distributed: bool
    seed: int
    reporter: Reporter
    registry: Registry

    @property
    def depth_alone(self) -> bool:
        """Whether nothing but blocks that go is asked for."""
        narrows = (self.ratio, self.widths, self.by, *self.shares.values())
        return self.translator == TRANSLATOR and all(x is None for x in narrows) and not (self.then or self.options)

    @property
    def shares(self) -> dict[str, float]:
        """What stays of streams and of the dimensions of queries and keys, as far as these are asked for."""
        return {name: share for name in SHARES if (share := getattr(self, name)) is not None}

    @property
    def rule(self) -> Widths:
        """The rule for hidden widths, where it is of any account."""
        return self.widths or Ratio(RATIO if self.ratio is None else self.ratio)

    @property
    def of_units(self) -> Asked:
        """What is to become smaller of the groups of units of a graph."""
        hidden_stay = self.shares and self.ratio is None and self.widths is None
        hidden = None if hidden_stay else with_registry(self.rule, self.registry)
        return Asked(self.blocks, hidden, self.stream, self.rotate, self.query_key)  # type: ignore[arg-type]


def request_of(**given: Any) -> Request:
    """What the arguments of `translate` ask for.

    Args:
        given: All of them but the network and its inputs, by name.

    Raises:
        SpecMismatch: one is something else than it may be, or does not go with another.
        ConfigError: options of `finish` are wrong.
    """
    _check(given)
    usual = {
        "options": given["options"] or {},
        "then": given["then"] or {},
        "finish": finish_options(given["finish"]),
    }
    return Request(**{**given, **usual})


def _check(given: Mapping[str, Any]) -> None:
    for name, (kinds, words) in KINDS.items():
        value = given[name]
        if not isinstance(value, kinds) or (isinstance(value, bool) and kinds is not bool):
            raise SpecMismatch(f"{name}: takes {words}, not {value!r:.60}")
    for name, options in (given["then"] or {}).items():
        if not isinstance(options, Mapping):
            raise SpecMismatch(f"then: {name}: takes options by name, or {{}}, not {options!r:.60}")
    if isinstance(given["ratio"], Mapping) and (wrong := [key for key in given["ratio"] if not isinstance(key, str)]):
        raise SpecMismatch(f"ratio: takes shares by pattern of paths, not by {wrong[0]!r:.60}")
    if given["widths"] is not None and not callable(given["widths"]):
        raise SpecMismatch(f"widths: takes a rule, as in widths=Ratio(0.5), not {given['widths']!r:.60}")
    if given["widths"] is not None and given["ratio"] is not None:
        raise SpecMismatch("ratio: is what widths decides; give one of them")
    if given["by"] not in (None, "blocks", "units"):
        raise SpecMismatch(f'by: takes "blocks" or "units", not {given["by"]!r:.60}')
    if given["rotate"] and given["stream"] is None:
        raise SpecMismatch("rotate: is done before a stream becomes narrower; give stream=SHARE (--stream SHARE)")
    for name, what in SHARES.items():
        share = given[name]
        if share is None:
            continue
        if not isinstance(share, int | float) or isinstance(share, bool) or not 0 < share < 1:
            raise SpecMismatch(f"{name}: {share!r:.60} is no share of {what}; give a number between 0 and 1")
        if given["by"] == "blocks":
            raise SpecMismatch(f'{name}: is found in the graph of the network; leave out by="blocks"')
    if given["to"] is not None:
        _check_to(given)


def _check_to(given: Mapping[str, Any]) -> None:
    if not given["to"]:
        raise SpecMismatch('to: names no parts; give targets by pattern of paths, as in to={"layer1.*": "bottleneck"}')
    for pattern, target in given["to"].items():
        if not isinstance(pattern, str) or not isinstance(target, str):
            raise SpecMismatch(
                f"to: takes the name of a target by pattern of paths, not {pattern!r:.60}: {target!r:.60}"
            )
    usual = {"translator": TRANSLATOR, "blocks": "*", "sequential": True, "widths": None, "by": None}
    usual |= dict.fromkeys(SHARES)
    others = [name for name, value in usual.items() if given[name] != value and given[name] is not None]
    if others or isinstance(given["ratio"], Mapping):
        raise SpecMismatch(
            f"to: goes with ratio (one number), depth, options, then, finish, calibrate and seed alone; leave out "
            f"{', '.join(others) or 'shares by pattern'}"
        )
