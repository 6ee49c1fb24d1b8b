"""JSON without NaN, names that lead nowhere else, and `~`."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from paramtrans.errors import Damaged, StoreError
from paramtrans.storage import json_files, names
from paramtrans.storage.cache import at_home, cache_dir
from paramtrans.utils import documents


@pytest.mark.parametrize("value", [math.nan, math.inf, [1.0, -math.inf], {"a": {"b": math.nan}}])
def test_no_writer_writes_what_json_has_no_number_for(tmp_path: Path, value: object) -> None:
    for write in (json_files.write_json, json_files.write_sealed):
        with pytest.raises(StoreError, match="is not written"):
            write(tmp_path / "x.json", {"value": value})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", [b'{"a": NaN}', b'{"a": [Infinity]}', b'{"a": -Infinity}'])
def test_no_reader_takes_it(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "x.json").write_bytes(text)
    with pytest.raises(Damaged, match="is no number in JSON"):
        json_files.read_json(tmp_path / "x.json")


@pytest.mark.parametrize("around", ["[]", "{}"])
def test_what_is_deeper_than_a_document_may_be_is_neither_written_nor_read(tmp_path: Path, around: str) -> None:
    document: Any = 1
    for _ in range(documents.MOST_DEPTH):
        document = [document] if around == "[]" else {"a": document}
    json_files.write_json(tmp_path / "x.json", document)
    assert json_files.read_json(tmp_path / "x.json") == document
    with pytest.raises(StoreError, match="deep in one another"):
        json_files.write_json(tmp_path / "x.json", [document])
    for text in (json.dumps([document]), "[" * 5000):
        (tmp_path / "x.json").write_text(text)
        with pytest.raises(Damaged):
            json_files.read_json(tmp_path / "x.json")


def test_a_byte_order_mark_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(b"\xef\xbb\xbf{}")
    with pytest.raises(Damaged, match="byte-order mark"):
        json_files.read_json(tmp_path / "x.json")


def test_numbers_that_are_not_finite_become_null_and_are_named() -> None:
    finite, lost = documents.finite({"a": [1.0, math.nan], "b": {"c": math.inf, "d": "x"}})
    assert finite == {"a": [1.0, None], "b": {"c": None, "d": "x"}} and lost == ["a.1", "b.c"]


def test_text_that_no_utf8_has_is_escaped_and_comes_back(tmp_path: Path) -> None:
    json_files.write_sealed(tmp_path / "x.json", {"path": "a\udcffb"})
    assert json_files.unsealed(tmp_path, json_files.read_json(tmp_path / "x.json")) == {"path": "a\udcffb"}


@pytest.mark.parametrize("name", ["run", "a b", "über-1", "x=0.5,y=2", "run.2"])
def test_a_name_of_known_letters_is_kept(name: str) -> None:
    assert names.checked(name, "file") == name == names.nearest(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/",
        ".",
        "..",
        "../x",
        "/etc/x",
        "a/b",
        "a\\b",
        ".hidden",
        "a\0b",
        "a\nb",
        "\x1b[31m",
        "x" * 300,
        "CON",
        "x .",
    ],
)
def test_any_other_is_refused_and_never_written(name: str) -> None:
    with pytest.raises(Damaged):
        names.checked(name, "file")
    assert names.is_component(names.nearest(name))


def test_home_is_found_or_the_lack_of_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert at_home("~/x", "") == tmp_path / "x"
    with pytest.raises(StoreError, match="no such home folder"):
        at_home("~nobody-of-that-name/x", "set it")
    monkeypatch.delenv("PARAMTRANS_CACHE")
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda *_, **__: "~/.cache/paramtrans")  # no home, no passwd
    monkeypatch.setattr(Path, "expanduser", lambda path: path)
    with pytest.raises(StoreError, match="PARAMTRANS_CACHE"):
        cache_dir()
