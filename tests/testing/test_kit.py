"""The kit finds what is broken: each broken component fails the one check meant for it, and a sound one fails none."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from pydantic import ConfigDict

from paramtrans.api.options import BaseOptions
from paramtrans.api.specs import Component
from paramtrans.errors import UnknownName
from paramtrans.plugins import Plugins
from paramtrans.plugins.registry import Entry, Provider, Registry
from paramtrans.testing import CHECKS, checks, results, subjects
from paramtrans.testing.check import Subject
from paramtrans.testing.every import BASES

SUFFIX = {"blocks": "Block", "translators": "Translator", "others": "", "networks": ""}
BLOCKS = {"basic_block", "conv", "attention"}
"""That broken translators are tried with."""
FILES = {name: Path(__file__).parent / "broken" / f"{name}.py" for name in SUFFIX}


@cache
def loaded(file: str) -> tuple[Registry, dict[str, str]]:
    """The registry with one file of broken components in it, and what each of them breaks."""
    plugins = Plugins()
    plugins.load_entry_points()
    plugins.load_file(FILES[file])
    registry = Registry(entry for entry in plugins.registry() if file != "translators" or _is_beside(entry))
    module = next(entry for entry in registry if entry.name.startswith("Sound")).resolve().__module__
    classes = {name: value for name, value in vars(sys.modules[module]).items() if isinstance(value, type)}
    return registry, {name: vars(cls)["breaks"] for name, cls in classes.items() if "breaks" in vars(cls)}


def _is_beside(entry: Entry) -> bool:
    """Whether broken translators are tried beside a component: with some blocks, as each of them takes seconds."""
    return entry.kind != "block_adapter" or entry.name in BLOCKS


def failing(file: str, name: str) -> dict[str, str]:
    """The checks that a component fails, with what they say."""
    registry, _ = loaded(file)
    tried = subjects(f"{name}{SUFFIX[file]}", registry)
    return {result.check: result.message for result in results(tried) if not result.passed}


CASES = [(file, name, check) for file in FILES for name, check in loaded(file)[1].items()]
SOUND = [
    (file, e.name.removesuffix(SUFFIX[file])) for file in FILES for e in loaded(file)[0] if e.name.startswith("Sound")
]


def marked(*case: str) -> Any:
    """Translators are tried between all pairs of blocks, which takes seconds each."""
    return pytest.param(*case, marks=pytest.mark.thorough if case[0] == "translators" else ())


@pytest.mark.parametrize(("file", "name", "check"), [marked(*case) for case in CASES])
def test_a_broken_component_fails_exactly_the_check_meant_for_it(file: str, name: str, check: str) -> None:
    failed = failing(file, name)
    assert list(failed) == [check], failed
    assert "expected" in failed[check] and "; found" in failed[check]


@pytest.mark.parametrize(("file", "name"), [marked(*case) for case in SOUND])
def test_a_sound_component_fails_none(file: str, name: str) -> None:
    assert failing(file, name) == {}


def test_an_error_in_a_components_file_is_named_with_its_line(tmp_path: Path) -> None:
    lines = [
        "from paramtrans import BlockAdapter, Component, hookimpl",
        "class Missing(BlockAdapter):",
        '    """A block that cannot be built."""',
        "    def module(self):",
        "        return self.options.chanels",
        "@hookimpl",
        "def paramtrans_block_adapters():",
        '    return [Component("missing", "a block", f"{__name__}:Missing")]',
    ]
    (tmp_path / "missing.py").write_text("\n".join(lines))
    plugins = Plugins()
    plugins.load_file(tmp_path / "missing.py")
    failed = [result.message for result in results(subjects("missing", plugins.registry())) if not result.passed]
    assert failed and all("(missing.py:5)" in message for message in failed)


class Ignoring(BaseOptions):
    """Anything goes."""

    model_config = ConfigDict(extra="ignore")


class Undocumented(BaseOptions):
    """One without a word."""

    secret: int = 0


class Doubling(BaseOptions):
    """Every time it is read, another number."""

    width: float = 1.0
    """Twice what was given."""

    def model_post_init(self, context: Any) -> None:
        object.__setattr__(self, "width", 2 * self.width)


class Required(BaseOptions):
    """Without a default, and no trial on the class."""

    size: int
    """A size."""


SPOILT = {
    "right_kind": BaseOptions,  # a class whose abstract methods are all left
    "unknown_options_are_refused": Ignoring,
    "options_are_documented": Undocumented,
    "options_survive_json": Doubling,
    "can_be_built": Required,
}
"""What components of every kind promise alike, with options that do not keep it."""


@pytest.mark.parametrize("kind", BASES)
@pytest.mark.parametrize(("promise", "options"), SPOILT.items(), ids=SPOILT)
def test_what_all_kinds_promise_alike_is_checked_in_each(monkeypatch, kind: str, promise: str, options: type) -> None:
    module = ModuleType("spoilt")
    module.Spoilt = type("Spoilt", (BASES[kind],), {"Options": options})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "spoilt", module)
    subject = Subject(Entry(kind, Component("x", "a summary", "spoilt:Spoilt"), Provider("x", "1")), {}, Registry())
    named = {check.name: check for check in CHECKS if kind in check.kinds}
    with pytest.raises(AssertionError, match=f"{promise}: expected .*found "):
        named[promise](subject)
    # What cannot be built cannot be tried in other ways either.
    others = {"options_are_documented"} if options is Required else SPOILT.keys() - {promise, "right_kind"}
    for other in others:
        named[other](subject)


def test_every_check_of_a_kind_is_shown_to_find_something_in_it() -> None:
    shown = {("imports_without_torch", "plugin"), *((promise, kind) for promise in SPOILT for kind in BASES)}
    for file, name, check in CASES:
        shown |= {(check, entry.kind) for entry in loaded(file)[0].named(f"{name}{SUFFIX[file]}")}
    assert {(check.name, kind) for check in CHECKS for kind in check.kinds} - shown == set()


def test_every_kind_has_a_sound_component_that_passes() -> None:
    kinds = {entry.kind for file, name in SOUND for entry in loaded(file)[0].named(f"{name}{SUFFIX[file]}")}
    assert kinds == {kind for check in CHECKS for kind in check.kinds} - {"plugin"}


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("code", "message"), [("import torch\n", "torch"), ("import no_such_module\n", "no_such_module")]
)
def test_a_plugin_that_imports_torch_or_fails_is_found(tmp_path, monkeypatch, code: str, message: str) -> None:
    (tmp_path / "heavy_plugin.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    entry = Entry("plugin", Component("heavy", "", "heavy_plugin"), Provider("heavy", "1"))
    [result] = results([Subject(entry, {}, Registry())])
    assert not result.passed and result.check == "imports_without_torch" and message in result.message


def test_unknown_names_are_answered() -> None:
    registry, _ = loaded("blocks")
    with pytest.raises(UnknownName, match='unknown component "soundblock"; did you mean "SoundBlock"'):
        subjects("soundblock", registry)
    with pytest.raises(UnknownName, match="no task of that name"):
        subjects("SoundBlock", registry, kind="task")
    with pytest.raises(UnknownName, match="is a command"):
        subjects("plugins", registry)


def test_given_options_stand_over_the_components_own() -> None:
    [subject] = subjects("SoundBlock", loaded("blocks")[0], options={"hidden": 3})
    assert (
        subject.options == {"channels": 4, "hidden": 3}
        and subject.title == "block_adapter-SoundBlock-channels=4,hidden=3"
    )
    assert subject.create().options.hidden == 3


def test_a_check_is_a_plain_function_of_a_subject() -> None:
    [subject] = subjects("WrongSymmetryBlock", loaded("blocks")[0])
    [check] = [check for check in checks(subject) if check.name == "symmetries_leave_the_function"]
    with pytest.raises(
        AssertionError, match=r"block_adapter-WrongSymmetryBlock-channels=4: symmetries_leave_the_function: "
    ):
        check(subject)


def test_the_kit_needs_no_pytest_to_be_imported() -> None:
    code = "import sys; sys.modules['pytest'] = None; import paramtrans.testing"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
