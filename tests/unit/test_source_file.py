"""Python files of users are run as they are now, and nothing is left beside them."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import pytest

from paramtrans.utils.source_file import source_spec


def test_a_file_that_was_just_edited_is_run_as_it_is_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    path = tmp_path / "mine.py"
    values = []
    for text in ("value = 1", "value = 2"):  # as long, and of the same second
        path.write_text(text)
        os.utime(path, (1_000_000_000, 1_000_000_000))
        spec = source_spec("mine", path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        values.append(module.value)
    assert values == [1, 2] and [file.name for file in tmp_path.iterdir()] == ["mine.py"]


def test_other_files_are_none() -> None:
    assert source_spec("mine", Path("mine.so")) is None
