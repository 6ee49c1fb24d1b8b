"""Writes into pyproject.toml what it says of first-party plugins: one for each folder here. `make plugins` runs this.

A first-party plugin is a folder `NAME` with a package `paramtrans_NAME` that has a module `plugin`. Packaging announces
and packs it, the import contracts hold it; nothing else needs to know that it is there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path

HERE = Path(__file__).parent
PROJECT = HERE.parent / "pyproject.toml"
ENTRY = '{0} = "paramtrans_{0}.plugin"'
PACKED = '    "plugins/{0}/paramtrans_{0}",'
IMPORTED = '    "paramtrans_{0}",'
LISTS = (
    (r"^\[project\.entry-points\.paramtrans\]\n", ENTRY, 1),
    (r"^\[tool\.hatch\.build\.targets\.wheel\]\npackages = \[\n", PACKED, 1),
    (r"^(?:root_packages|ancestors|forbidden_modules) = \[\n", IMPORTED, 3),
)
"""What stands before a list, the line of a plugin in it, and how many such lists there are."""


def folders(root: Path = HERE) -> list[str]:
    """Names of the first-party plugins, in the order of the alphabet."""
    return sorted(path.parents[1].name for path in root.glob("*/paramtrans_*/plugin.py"))


def written(text: str, names: Iterable[str]) -> str:
    """The text of pyproject.toml with a line for each plugin in each list; those that are there keep their order."""
    names = list(names)
    for head, line, lists in LISTS:
        text, changed = re.subn(f"({head})((?:.+\\n)*?)(?=\\]|\\n)", _filled(line, names), text, flags=re.MULTILINE)
        if changed != lists:
            raise SystemExit(f"pyproject.toml: {changed} lists of plugins behind {head!r}, and not {lists}")
    return text


def _filled(line: str, names: list[str]) -> Callable[[re.Match[str]], str]:
    wanted = [line.format(name) for name in names]
    a_plugin = re.compile(re.escape(line).replace(r"\{0\}", r"\w+"))

    def fill(match: re.Match[str]) -> str:
        before = match[2].splitlines()
        lines = [entry for entry in before if entry in wanted or not a_plugin.fullmatch(entry)]
        lines += [entry for entry in wanted if entry not in before]
        return match[1] + "".join(f"{entry}\n" for entry in lines)

    return fill


if __name__ == "__main__":
    PROJECT.write_text(written(PROJECT.read_text(encoding="utf-8"), folders()), encoding="utf-8")
