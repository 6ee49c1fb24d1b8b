"""Near names: what was meant by one that there is not."""

from __future__ import annotations

from collections.abc import Iterable


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The name most like `name`; None where none is."""
    import difflib

    return next(iter(difflib.get_close_matches(name, list(names), n=1)), None)


def did_you_mean(name: str, names: Iterable[str], otherwise: str = "") -> str:
    """The nearest of some names as a question behind a semicolon; where none is near, what to say `otherwise`, if
    anything."""
    near = nearest(name, names)
    said = f'did you mean "{near}"?' if near else otherwise
    return f"; {said}" if said else ""
