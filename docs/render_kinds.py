"""Writes docs/kinds.md: a complete example of each kind of component, as `paramtrans new plugin --kind` writes it."""

from __future__ import annotations

import textwrap
from pathlib import Path

from paramtrans.plugins.scaffold import rendered
from paramtrans.plugins.scaffold_kinds import KINDS, LIFECYCLE, NAMES

PAGE = Path(__file__).parent / "kinds.md"
UNITS = Path(__file__).parent / "unit_translator.py"
PACKAGE = "acme"
WIDTH = 126
HEAD = """# A plugin of each kind

One complete example for each kind of component. `paramtrans new plugin acme --kind task` writes a distribution with
the example of that kind, ready to install; `--kind` may be given any number of times, and `--kind all` writes all of
these. The tests of paramtrans install that distribution, hold every component to what its kind promises, and finish
a run with them.

Every example is announced in one module, by a hook for each kind:

"""
WORDS = {
    "block_adapter": """All that is known about one kind of block. Sizes, tokens and FLOPs are derived from the
        module.""",
    "translator": """What makes target parameters from source parameters. This one learns; see the
        [tutorial](tutorial.md) for one that does not.""",
    "augmenter": "A random change of parameters while a translator is trained.",
    "objective": "What a translator is trained on. A config gives each a `weight`.",
    "task": "Hosts and their data. They need be no images: here they are sequences of 32 numbers.",
    "rival": "A way to fill the target block that the translator is compared with.",
    "probe": "Inputs on which translators compare what blocks compute.",
    "executor": """Where the shards of a zoo are trained. A job is a record that survives JSON, and says which plugins
        it needs.""",
    "architecture": """What stands before the colon of `--arch`: `acme_architecture:16-64-10`. Names are also read from
        the records of translated networks, which anybody may have written: of the arguments behind `?`, a record may
        set those in `bounds` alone, within them, and `check_recorded` may refuse more. A source whose library has a
        form of its own for smaller networks writes it in `save`, for `--stock`; `inputs` turns texts, images or
        recordings into what its networks are called with, for `--calibrate`.""",
    "width_rule": """How many hidden units each block of a network keeps: `--widths acme_width_rule` with
        `--option acme_width_rule.units=16`, or `translate(network, widths=registry.create("width_rule", …))`.""",
    "metric": """What a task is measured by (`metric = "acme_metric"` in its class), or a number beside that, which the
        section `metrics` shows on the page (`[[evaluation.metrics]]`). `measure` says what counts of each example,
        `combine` makes one number of a whole set: the mean, unless overridden. `label`, `unit`, `digits`, `bounds` and
        `higher_is_better` say how it is read.""",
    "report_section": "A section of a run's page.",
    "pretrained_translator": """A translator to use by name. `PretrainedTranslator.save_pretrained` writes the
        folder.""",
    "command": "A subcommand: `paramtrans acme_command runs/mnist`.",
    LIFECYCLE: """Hooks that are told how a run goes. One that raises `StopRun` ends the run: what is done stays, the
        command exits with status 3, and the same command goes on from there. Such a module is announced by an entry
        point of its own.""",
}
"""What is said of each."""
UNITS_WORDS = """A translator may also work on *units*, which the graph of any network shows. Each of these is a class
    variable and a class method; a translator has those that it needs. `keeps_units`, `keep`: which units of a group
    stay. `merges_units`, `merge`: which become one. `solves_readers`: the layers that read units are solved for by
    least squares, which needs no method. `adjusts_units`, `adjust`: goes on from what was written, group by group, when
    the network is smaller; such a translator may be named in `then`. `SpecMismatch` from `keep` or `merge` leaves that
    group as it is, with its reason. `UnitCase` and `UnitPiece` are what these are given."""


def page() -> str:
    """The page."""
    files = rendered(PACKAGE, PACKAGE, NAMES)
    parts = [HEAD + _code(files, "plugin")]
    for name, file, noun in [*((k.kind, k.file, k.noun) for k in KINDS), (LIFECYCLE, LIFECYCLE, "hooks of a run")]:
        heading = noun.removeprefix("a ").removeprefix("an ").capitalize()
        words = " ".join(f"`--kind {name}`. {WORDS[name]}".split())
        said = textwrap.fill(words, WIDTH, break_long_words=False, break_on_hyphens=False)
        parts.append(f"## {heading}\n\n{said}\n\n{_code(files, file)}")
        if name == "translator":
            said = textwrap.fill(" ".join(UNITS_WORDS.split()), WIDTH, break_long_words=False, break_on_hyphens=False)
            parts.append(f"{said}\n\n```python\n{UNITS.read_text(encoding='utf-8')}```\n")
    return "\n".join(parts)


def _code(files: dict[str, str], file: str) -> str:
    path = f"{PACKAGE}/{file}.py"
    return f'```python title="{path}"\n{files[path]}```\n'


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
