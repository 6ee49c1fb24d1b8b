"""What `translate` is given, held to what it takes before any work is done."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from paramtrans.errors import SpecMismatch

KINDS: dict[str, tuple[Any, str]] = {
    "translator": (str | Path, 'a name or a folder, as in translator="refit"'),
    "blocks": (str, 'a pattern of paths, as in blocks="layer1.*"'),
    "options": (Mapping | None, 'options by name, as in options={"units": "norm"}'),
    "then": (Mapping | None, 'options by translator, as in then={"matching": {}}'),
    "to": (Mapping | None, 'targets by pattern of paths, as in to={"layer1.*": "bottleneck"}'),
    "finish": (int | Mapping | None, "a number of steps, or options, as in finish=300"),
    "seed": (int, "a whole number"),
    "sequential": (bool, "True or False"),
    "rotate": (bool, "True or False"),
    "depth": (int | float | None, "a share of the blocks, as in depth=0.75"),
}
"""For each argument, what it may be, and in words."""


SHARES = {"stream": "a stream's width", "query_key": "the dimensions of queries and keys"}
"""What shares are of."""


def check_arguments(widths: Any, ratio: Any, by: Any, shares: Mapping[str, Any], **given: Any) -> None:
    """Hold arguments of `translate` to what they may be.

    Args:
        widths: A width rule.
        ratio: A share of the hidden units, which goes with no rule.
        by: "blocks", "units" or None.
        shares: A share, or None, of each of `SHARES`.
        given: The others, by name.

    Raises:
        SpecMismatch: one is something else.
    """
    for name, value in given.items():
        kinds, words = KINDS[name]
        if not isinstance(value, kinds) or (isinstance(value, bool) and kinds is not bool):
            raise SpecMismatch(f"{name}: takes {words}, not {value!r:.60}")
    for name, options in (given["then"] or {}).items():
        if not isinstance(options, Mapping):
            raise SpecMismatch(f"then: {name}: takes options by name, or {{}}, not {options!r:.60}")
    if widths is not None and not callable(widths):
        raise SpecMismatch(f"widths: takes a rule, as in widths=Ratio(0.5), not {widths!r:.60}")
    if widths is not None and ratio is not None:
        raise SpecMismatch("ratio: is what widths decides; give one of them")
    if by not in (None, "blocks", "units"):
        raise SpecMismatch(f'by: takes "blocks" or "units", not {by!r:.60}')
    if given["rotate"] and shares["stream"] is None:
        raise SpecMismatch("rotate: is done before a stream becomes narrower; give stream=SHARE (--stream SHARE)")
    for name, share in shares.items():
        if share is None:
            continue
        if not isinstance(share, int | float) or isinstance(share, bool) or not 0 < share < 1:
            raise SpecMismatch(f"{name}: {share!r:.60} is no share of {SHARES[name]}; give a number between 0 and 1")
        if by == "blocks":
            raise SpecMismatch(f'{name}: is found in the graph of the network; leave out by="blocks"')
