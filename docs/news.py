"""Moves the fragments in news/ into CHANGELOG.md, to the top of the version that is not released yet.

`python docs/news.py` does it; with `--check` it only looks. What a fragment is: news/README.md.
"""

from __future__ import annotations

import argparse
import re
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
KINDS = ("added", "changed", "deprecated", "removed", "fixed")
NAME = re.compile(rf"\+[a-z0-9]+(-[a-z0-9]+)*\.(?P<kind>{'|'.join(KINDS)})\.md")
UNRELEASED = re.compile(r"^## .*\(unreleased\)\n\n?", re.MULTILINE)


@dataclass(frozen=True)
class Fragment:
    """One change: its file, its kind, and what it says in one line."""

    path: Path
    kind: str
    text: str

    def item(self) -> str:
        """The change as an item of a list; what is not new says what kind of change it is."""
        text = self.text if self.kind == "added" else f"{self.kind.capitalize()}: {self.text}"
        return textwrap.fill(
            text,
            width=120,
            initial_indent="- ",
            subsequent_indent="  ",
            break_long_words=False,
            break_on_hyphens=False,
        )


def read(folder: Path) -> tuple[list[Fragment], list[str]]:
    """The fragments of a folder, by kind and then by name, and what is wrong with its files."""
    fragments, problems = [], []
    for path in sorted(folder.iterdir()):
        if path.name == "README.md":
            continue
        match = NAME.fullmatch(path.name)
        if match is None:
            problems.append(f"{path.name}: is not called +WORDS.KIND.md, where KIND is one of {', '.join(KINDS)}")
            continue
        text = " ".join(path.read_text(encoding="utf-8").split())
        if text:
            fragments.append(Fragment(path, match["kind"], text))
        else:
            problems.append(f"{path.name}: is empty")
    return sorted(fragments, key=lambda fragment: KINDS.index(fragment.kind)), problems


def folded(changelog: str, fragments: Sequence[Fragment]) -> str:
    """The changelog with the fragments in front of what its unreleased version says already."""
    heading = UNRELEASED.search(changelog)
    if heading is None:
        raise SystemExit("CHANGELOG.md has no heading that ends in (unreleased)")
    items = "".join(f"{fragment.item()}\n" for fragment in fragments)
    before, after = changelog[: heading.end()].rstrip("\n"), changelog[heading.end() :]
    if not after.startswith("- "):  # another version follows
        items += "\n"
    return f"{before}\n\n{items}{after}"


def main(arguments: Sequence[str] | None = None, root: Path = ROOT) -> int:
    """Fold or check; the exit status is 1 where a file of news/ is not as it should be."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing")
    check = parser.parse_args(arguments).check
    fragments, problems = read(root / "news")
    if problems:
        print("\n".join(f"news/{problem}" for problem in problems), file=sys.stderr)
        return 1
    if fragments and not check:
        changelog = root / "CHANGELOG.md"
        changelog.write_text(folded(changelog.read_text(encoding="utf-8"), fragments), encoding="utf-8", newline="\n")
        for fragment in fragments:
            fragment.path.unlink()
    print(f"{len(fragments)} {'to be moved' if check else 'moved'}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
