"""The page of examples shows what `paramtrans new plugin` writes, which other tests install and run."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from paramtrans.plugins.registry import KINDS
from paramtrans.plugins.scaffold_kinds import LIFECYCLE, NAMES

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_is_what_is_written() -> None:
    spec = importlib.util.spec_from_file_location("render_kinds", DOCS / "render_kinds.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    written = (DOCS / "kinds.md").read_text(encoding="utf-8")
    assert written == module.page(), "run docs/render_kinds.py"


@pytest.mark.parametrize("kind", KINDS)
def test_there_is_an_example_of_every_kind(kind: str) -> None:
    assert kind in NAMES and LIFECYCLE in NAMES
