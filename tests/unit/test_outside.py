"""Files that are read: regular ones of a bounded size. Files that are written: nothing else is ever replaced."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from paramtrans.errors import StoreError
from paramtrans.storage import files, json_files, outputs, outside, sealed_params

MAKE: dict[str, Callable[[Path], object]] = {
    "a pipe": os.mkfifo,
    "a folder": Path.mkdir,
    "a device": lambda path: path.symlink_to("/dev/null"),
}


@pytest.mark.parametrize("what", MAKE)
def test_what_is_no_file_is_refused_unread(tmp_path: Path, what: str) -> None:
    MAKE[what](tmp_path / "x")
    for read in (outside.content, outside.size, outside.tensors, json_files.read_json, files.checksum):
        with pytest.raises(StoreError, match="no regular file"):
            read(tmp_path / "x")


def test_a_file_too_large_is_refused_unread(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"123")
    assert outside.content(tmp_path / "x", at_most=3) == b"123"
    with pytest.raises(StoreError, match="no such file has more than 2"):
        outside.content(tmp_path / "x", at_most=2)


@pytest.mark.parametrize("name", ["a\0b", "x" * 300])
def test_paths_that_cannot_be_are_refused_in_words(tmp_path: Path, name: str) -> None:
    for do in (outside.content, files.exists, lambda path: files.write_bytes(path, b"")):
        try:
            do(tmp_path / name)
        except StoreError as error:
            assert "cannot be" in str(error)


def test_paths_that_are_no_text_are_read(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"\xff.safetensors")
    sealed_params.save_params(path, {"a": torch.ones(2)}, {})
    assert sealed_params.load_params(path)[0]["a"].tolist() == [1, 1]
    path.write_bytes(save({"a": torch.ones(3)}))
    assert outside.tensors(path)["a"].tolist() == [1, 1, 1]


@pytest.mark.parametrize("what", [*MAKE, "a link", "a link to nowhere"])
def test_nothing_but_a_file_is_replaced(tmp_path: Path, what: str) -> None:
    path, mine = tmp_path / "x", tmp_path / "mine"
    mine.write_text("mine")
    links = {"a link": mine, "a link to nowhere": tmp_path / "nowhere"}
    MAKE.get(what, lambda path: path.symlink_to(links[what]))(path)
    before = path.lstat().st_ino
    for write in (lambda: files.write_bytes(path, b"new"), lambda: outputs.check(path, force=True)):
        with pytest.raises(StoreError, match="that would replace"):
            write()
    assert path.lstat().st_ino == before and mine.read_text() == "mine" and not (tmp_path / "nowhere").exists()


def test_an_output_is_no_input_and_no_file_of_a_run_unless_it_is_meant(tmp_path: Path) -> None:
    model, folder, free = tmp_path / "model.pt", tmp_path / "run", tmp_path / "free"
    (folder / "translator").mkdir(parents=True)
    for path in (model, folder / "run.json", folder / "report.html", folder / "translator" / "README.md", free):
        path.write_text("mine")
    outputs.check(free, [model, folder])
    outputs.check(folder / "new.html", [folder])
    os.link(model, tmp_path / "same.pt")
    for path in (model, tmp_path / "same.pt", folder / "report.html", folder / "translator" / "README.md"):
        with pytest.raises(StoreError, match="--force"):
            outputs.check(path, [model])
        outputs.check(path, [model], force=True)


@pytest.mark.parametrize("check", [outputs.check, outputs.check_folder])
def test_a_place_where_nothing_can_be_written_is_known_before_any_work(tmp_path: Path, check: Any) -> None:
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "file" / "x", tmp_path / "file" / "new" / "x", Path("/proc/x")):
        if path.parts[1] != "proc" or Path("/proc/self").exists():
            with pytest.raises(StoreError, match=r"cannot be written: .*; choose another place"):
                check(path)
    check(tmp_path / "new" / "folder" / "x")
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_a_new_folder_lies_outside_of_what_is_read(tmp_path: Path) -> None:
    (tmp_path / "zoo").mkdir()
    for path in (tmp_path / "zoo", tmp_path / "zoo" / "out", tmp_path / "x" / ".." / "zoo" / "out"):
        with pytest.raises(StoreError, match="lies inside"):
            outputs.check_folder(path, [tmp_path / "zoo"])
    outputs.check_folder(tmp_path / "out", [tmp_path / "zoo"])
    with pytest.raises(StoreError, match="not empty"):
        outputs.check_folder(tmp_path, [tmp_path / "zoo"])
