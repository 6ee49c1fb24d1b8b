"""The code of the docs is run: files are written, commands are called, and what they print is what the page shows.

A page is read from top to bottom in one folder. What its blocks mean:

- code with `title="FILE"`: the file, or behind `<!-- in place of: TEXT -->` the statement in it that begins so;
- `console`: commands behind `$`, and what they print; `...` stands for anything, and decimal fractions, which differ
  from machine to machine, need only be near;
- `python` without a title: run, and what it prints is compared with the `text` block behind it, if there is one;
- anything else is left alone.

`DOCS_WRITE=1 pytest tests/docs` writes transcripts anew.
"""

from __future__ import annotations

import doctest
import json
import math
import os
import re
import shlex
import subprocess
import textwrap
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support import warm

pytestmark = pytest.mark.docs

ROOT = Path(__file__).parents[2]
FENCE = re.compile(
    r"^(?P<before><!-- in place of: (?P<place>.*?) -->\n)?"
    r"```(?P<language>\w*)(?P<info>[^\n]*)\n(?P<body>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
FRACTION = re.compile(r"\d+\.\d+")
LATENCY = re.compile(r"\d+\.\d+ ms")
WRITE = os.environ.get("DOCS_WRITE") == "1"
RUN = ["docs/tutorial.md", "docs/networks.md", "docs/plugins.md"]
"""Pages that are run whole, each with its own folder."""


@dataclass
class Page:
    """A page while it is run: its folder, and what it shows once it is true."""

    folder: Path
    site: Path
    shown: list[str] = field(default_factory=list)

    def python(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Python in the page's folder, which is importable as after an editable installation."""
        self.site.mkdir(exist_ok=True)
        path = os.pathsep.join([str(self.folder), str(self.site)])
        env = {**os.environ, "PYTHONPATH": path, "COLUMNS": "110", "NO_COLOR": "1", "PYTEST_ADDOPTS": ""}
        return warm.python(arguments, env, self.folder, timeout=500)

    def command(self, line: str) -> str:
        """What a command of a transcript prints."""
        program, *arguments = shlex.split(line)
        if line.startswith("pip install --editable"):
            quiet = ("--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--target", str(self.site))
            done = self.python("-m", "pip", "install", *quiet, arguments[-1])
            assert done.returncode == 0, done.stderr
            return ""
        module = {"paramtrans": "paramtrans.cli.main", "pytest": "pytest", "python": ""}[program]
        done = self.python(*(["-m", module] if module else []), *arguments)
        assert "Traceback" not in done.stderr, done.stderr
        return _steady(done.stdout + done.stderr)

    def write(self, info: dict[str, str], body: str, place: str | None) -> None:
        """A file of the page, or a change of it."""
        path = self.folder / info["title"]
        path.parent.mkdir(parents=True, exist_ok=True)
        if place:
            body = _replaced(path.read_text(), place, body)
        path.write_text(body)
        os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns + 10**9 * len(self.shown)))


def _replaced(text: str, place: str, body: str) -> str:
    """The text with another statement where one begins with `place` and ends in a bracket below its first letter."""
    pattern = re.compile(rf"^( *){re.escape(place)}.*?^\1\)\n", re.MULTILINE | re.DOTALL)
    replaced, count = pattern.subn(lambda match: textwrap.indent(body, match[1]), text)
    assert count == 1, f"{count} statements begin with {place}"
    return replaced


def _steady(printed: str) -> str:
    """Without what differs from one run to the next."""
    printed = re.sub(r"in \d+\.\d+s( \(\d+:\d\d:\d\d\))?", "in 9.99s", printed)
    return "\n".join(line.rstrip() for line in printed.rstrip().splitlines())


def _transcript(page: Page, body: str) -> str:
    """The same commands with what they print; where the page leaves lines out rightly, it goes on doing so."""
    lines = []
    for command, wanted in re.findall(r"^\$ ([^\n]*)\n(.*?)(?=^\$ |\Z)", body, re.MULTILINE | re.DOTALL):
        printed = page.command(command)
        given = printed + "\n" if printed else ""
        lines.append(f"$ {command}\n{wanted if _alike(wanted, given) else given}")
    return "".join(lines)


def _alike(wanted: str, given: str) -> bool:
    """Whether what is printed is what the page shows."""
    if doctest.OutputChecker().check_output(wanted, given, doctest.ELLIPSIS):
        return True
    wanted, given = (LATENCY.sub("# ms", text) for text in (wanted, given))
    texts = [FRACTION.sub("#", text).split() for text in (wanted, given)]
    numbers = [[float(number) for number in FRACTION.findall(text)] for text in (wanted, given)]
    near = all(math.isclose(a, b, rel_tol=0.1, abs_tol=0.05) for a, b in zip(*numbers, strict=False))
    return texts[0] == texts[1] and near


def run(page: Page, text: str) -> str:
    """The page as it would be if all it shows were what is printed."""
    printed: list[str] = []

    def block(match: re.Match[str]) -> str:
        language, info, body = match["language"], _info(match["info"]), match["body"]
        if "title" in info:
            page.write(info, body, match["place"])
        elif language == "console":
            body = _transcript(page, body)
        elif language == "python":
            done = page.python("-c", body)
            assert done.returncode == 0, done.stderr
            printed.append(done.stdout)
        elif language == "text" and printed:
            body = printed.pop()
        page.shown.append(language)
        return f"{match['before'] or ''}```{language}{match['info']}\n{body}```"

    return FENCE.sub(block, text)


def _info(text: str) -> dict[str, str]:
    return dict(re.findall(r'(\w+)="((?:\\"|[^"])*)"', text))


SLOW = pytest.mark.slow
"""For the page that trains two networks: minutes."""


@pytest.mark.parametrize("name", [pytest.param(n, marks=SLOW) if n == "docs/networks.md" else n for n in RUN])
def test_a_page_shows_what_its_code_does(name: str, tmp_path: Path) -> None:
    text = (ROOT / name).read_text()
    folder = tmp_path / "page"
    folder.mkdir()
    shown = run(Page(folder, tmp_path / "site"), text)
    if WRITE:
        (ROOT / name).write_text(shown)
    assert shown == text


CODE = [
    pytest.param(language, info, body, id=f"{path.relative_to(ROOT).as_posix()}-{number}")
    for path in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")])
    for number, (_, _, language, info, body) in enumerate(FENCE.findall(path.read_text()))
    if language in ("python", "toml", "json")
]


@pytest.mark.parametrize(("language", "info", "body"), CODE)
def test_every_block_of_code_is_well_formed(language: str, info: str, body: str) -> None:
    if language == "python":
        compile(textwrap.dedent(body), "<docs>", "exec")
    else:
        {"toml": tomllib.loads, "json": json.loads}[language](body)
