"""Parameters on disk: written whole or not at all, and any damage is noticed and named."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st

from paramtrans.errors import Damaged, StoreError
from paramtrans.storage import files, json_files, outside, sealed_params

PARAMS = {"conv.weight": torch.arange(24.0).view(2, 3, 2, 2), "conv.bias": torch.tensor([[1.5], [-0.0]])}
RECORD = {"format": 1, "seeds": [3, 4], "name": "zürich", "nested": {"a": [1.25, None, True]}}
FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "zoo" / "shard.safetensors"
    sealed_params.save_params(path, PARAMS, RECORD)
    return path


def damaged(path: Path, named: Path | None = None) -> str:
    """Loading must fail, as damage or at least as an error of the store, and name the file."""
    with pytest.raises(StoreError) as caught:
        sealed_params.load_params(path)
    assert str(named or path) in str(caught.value)
    return str(caught.value)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# There and back


def test_parameters_and_record_come_back_as_they_were(saved: Path) -> None:
    params, record = sealed_params.load_params(saved)
    assert params.keys() == PARAMS.keys()
    assert all(torch.equal(params[n].view(torch.int32), PARAMS[n].view(torch.int32)) for n in PARAMS)
    assert {key: record[key] for key in RECORD} == RECORD


def test_documents_are_for_people_too(tmp_path: Path) -> None:
    json_files.write_json(tmp_path / "x.json", {"größe": [1]})
    assert (tmp_path / "x.json").read_text(encoding="utf-8") == '{\n  "größe": [\n    1\n  ]\n}\n'


@pytest.mark.parametrize("version", [3, 0, True, 1.0, "1", None, [1]])
def test_a_format_that_is_not_read_is_told_with_that_which_is_and_what_to_do(version: Any) -> None:
    with pytest.raises(StoreError) as caught:
        json_files.check_format(Path("x.json"), version, (1, 2), "use --fresh")
    assert str(caught.value) == f"x.json: has format {version!r}, this paramtrans reads 2; use --fresh"


def test_every_format_that_is_read_is_accepted() -> None:
    for version in (1, 2):
        json_files.check_format(Path("x.json"), version, (1, 2))


@pytest.mark.parametrize(("number", "reason"), [(errno.ENOSPC, os.strerror(errno.ENOSPC)), (None, "a reason in words")])
def test_why_nothing_could_be_written_is_told(tmp_path: Path, monkeypatch, number: int | None, reason: str) -> None:
    """Also where the file beside it could not even be begun."""

    def fails(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number)) if number else OSError(reason)

    monkeypatch.setattr(Path, "open", fails)
    with pytest.raises(StoreError, match=rf"x\.json: cannot be written: {reason}; free space"):
        json_files.write_json(tmp_path / "x.json", {})


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool])
def test_types_are_kept(tmp_path: Path, dtype: torch.dtype) -> None:
    path = tmp_path / "x.safetensors"
    sealed_params.save_params(path, {"t": torch.ones(3, dtype=dtype)}, {})
    assert sealed_params.load_params(path)[0]["t"].dtype is dtype


def test_views_and_shared_tensors_are_saved(tmp_path: Path) -> None:
    path, whole = tmp_path / "x.safetensors", torch.arange(12.0).view(3, 4)
    sealed_params.save_params(path, {"turned": whole.T, "part": whole[:, 1:3], "whole": whole, "again": whole}, {})
    loaded, _ = sealed_params.load_params(path)
    assert torch.equal(loaded["turned"], whole.T) and torch.equal(loaded["part"], whole[:, 1:3])
    assert torch.equal(loaded["again"], whole) and torch.equal(loaded["whole"], whole)


def test_tensors_with_gradients_and_no_tensors_are_saved(tmp_path: Path) -> None:
    sealed_params.save_params(tmp_path / "a.safetensors", {"w": torch.ones(2, requires_grad=True)}, {})
    sealed_params.save_params(tmp_path / "b.safetensors", {}, {})
    assert not sealed_params.load_params(tmp_path / "a.safetensors")[0]["w"].requires_grad
    assert sealed_params.load_params(tmp_path / "b.safetensors")[0] == {}


@FUZZ
@given(
    record=st.dictionaries(
        st.text(max_size=6),
        st.recursive(
            st.none()
            | st.booleans()
            | st.integers(-(2**53), 2**53)
            | st.floats(allow_nan=False, allow_infinity=False)
            | st.text(max_size=6),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
            max_leaves=6,
        ),
        max_size=4,
    )
)
def test_any_record_comes_back(tmp_path: Path, record: dict[str, Any]) -> None:
    path = tmp_path / "x.safetensors"
    sealed_params.save_params(path, PARAMS, record)
    loaded = sealed_params.load_record(path)
    reserved = {"bytes", "sha256"}
    assert {key: loaded[key] for key in record if key not in reserved} == {
        key: value for key, value in record.items() if key not in reserved
    }


def test_saving_again_replaces_both_files(saved: Path) -> None:
    sealed_params.save_params(saved, {"other": torch.zeros(1)}, {"n": 2})
    params, record = sealed_params.load_params(saved)
    assert list(params) == ["other"] and record["n"] == 2 and "seeds" not in record
    assert names(saved.parent) == [saved.name, f"{saved.name}.json"]


def test_nothing_is_pickled(saved: Path) -> None:
    head = saved.read_bytes()
    length = struct.unpack("<Q", head[:8])[0]
    assert json.loads(head[8 : 8 + length]).keys() - {"__metadata__"} == PARAMS.keys()


# Atomic writing


@pytest.mark.parametrize("step", ["write", "fsync", "replace"])
@pytest.mark.parametrize(
    "failure", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt(), MemoryError()], ids=repr
)
def test_a_failure_while_writing_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, failure: BaseException
) -> None:
    path = tmp_path / "x.bin"
    files.write_bytes(path, b"old")
    fail_at(monkeypatch, step, failure)
    with pytest.raises(StoreError if isinstance(failure, OSError) else type(failure)) as caught:
        files.write_bytes(path, b"new and longer")
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["x.bin"]
    if isinstance(failure, OSError):
        assert str(path) in str(caught.value) and "No space left on device" in str(caught.value)


@pytest.mark.parametrize("step", ["write", "fsync", "replace"])
def test_a_failure_while_writing_a_new_file_leaves_nothing(tmp_path: Path, monkeypatch, step: str) -> None:
    fail_at(monkeypatch, step, OSError(errno.EIO, "Input/output error"))
    with pytest.raises(StoreError):
        json_files.write_json(tmp_path / "x.json", {"a": 1})
    assert names(tmp_path) == []


def fail_at(monkeypatch: pytest.MonkeyPatch, step: str, failure: BaseException) -> None:
    """Make one step of writing fail; `write` gets half of the content to the disk first."""

    def fail(*args: Any, **options: Any) -> Any:
        raise failure

    if step != "write":
        monkeypatch.setattr(os, step, fail)
        return
    opened = Path.open

    def open_failing(path: Path, mode: str = "r", *args: Any, **options: Any) -> Any:
        file = opened(path, mode, *args, **options)
        return HalfWriter(file, failure) if "w" in mode or "x" in mode else file

    monkeypatch.setattr(Path, "open", open_failing)


class HalfWriter:
    """A file whose disk is full half-way through."""

    def __init__(self, file: Any, failure: BaseException) -> None:
        self.file, self.failure = file, failure

    def write(self, content: bytes) -> int:
        self.file.write(content[: len(content) // 2])
        self.file.flush()
        raise self.failure

    def __enter__(self) -> HalfWriter:
        return self

    def __exit__(self, *details: object) -> None:
        self.file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


def test_a_failure_between_parameters_and_record_is_never_taken_for_whole(saved: Path, monkeypatch) -> None:
    monkeypatch.setattr(json_files, "write_json", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        sealed_params.save_params(saved, {"w": torch.zeros(5)}, {})
    damaged(saved)


def test_folders_are_made(tmp_path: Path) -> None:
    json_files.write_json(tmp_path / "a" / "b" / "c.json", [1])
    assert json_files.read_json(tmp_path / "a" / "b" / "c.json") == [1]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "x.json"
    with pytest.raises(StoreError) as caught:
        json_files.write_json(path, {})
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_folder_in_the_place_of_the_file_is_named_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    (path / "kept").mkdir(parents=True)
    with pytest.raises(StoreError, match=r"x\.json: cannot be written"):
        json_files.write_json(path, {})
    assert names(tmp_path) == ["x.json"] and names(path) == ["kept"]


# Damage


@pytest.mark.parametrize("keep", [0, 1, 7, 8, 9, 50, 0.5, -1])
def test_a_file_cut_off_is_damage(saved: Path, keep: float) -> None:
    content = saved.read_bytes()
    saved.write_bytes(content[: int(keep * len(content)) if isinstance(keep, float) else keep])
    with pytest.raises(Damaged, match=str(saved)):
        sealed_params.load_params(saved)


@FUZZ
@given(data=st.data())
def test_a_flipped_bit_anywhere_in_the_parameters_is_damage(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "x.safetensors"
    sealed_params.save_params(path, PARAMS, RECORD)
    content = bytearray(path.read_bytes())
    position = data.draw(st.integers(0, 8 * len(content) - 1))
    content[position // 8] ^= 1 << position % 8
    path.write_bytes(content)
    with pytest.raises(Damaged) as caught:
        sealed_params.load_params(path)
    assert str(path) in str(caught.value)


@FUZZ
@given(data=st.data())
def test_a_flipped_bit_anywhere_in_the_record_is_damage_or_changes_nothing(tmp_path: Path, data) -> None:
    path = tmp_path / "x.safetensors"
    sealed_params.save_params(path, PARAMS, RECORD)
    before = sealed_params.load_record(path)
    place = sealed_params.record_path(path)
    content = bytearray(place.read_bytes())
    position = data.draw(st.integers(0, 8 * len(content) - 1))
    content[position // 8] ^= 1 << position % 8
    place.write_bytes(content)
    try:
        assert sealed_params.load_record(path) == before  # white space between values
    except StoreError as error:
        assert str(place) in str(error)


@FUZZ
@given(content=st.binary(max_size=80))
def test_any_bytes_as_record_are_damage(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.safetensors"
    sealed_params.save_params(path, PARAMS, {})
    sealed_params.record_path(path).write_bytes(content)
    with pytest.raises(Damaged) as caught:
        sealed_params.load_params(path)
    assert str(sealed_params.record_path(path)) in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"null", b"[]", b"3", b'"text"', b"{}", b"[" * 100_000, b"9" * 5000])
def test_what_is_no_record_is_damage(saved: Path, content: bytes) -> None:
    sealed_params.record_path(saved).write_bytes(content)
    with pytest.raises(Damaged):
        sealed_params.load_params(saved)


def test_missing_parameters_are_damage(saved: Path) -> None:
    saved.unlink()
    with pytest.raises(Damaged, match="missing"):
        sealed_params.load_params(saved)


def test_a_missing_record_is_named(saved: Path) -> None:
    sealed_params.record_path(saved).unlink()
    damaged(saved, sealed_params.record_path(saved))


def test_longer_and_empty_files_are_damage(saved: Path) -> None:
    content = saved.read_bytes()
    for other in (content + b"\0", b""):
        saved.write_bytes(other)
        with pytest.raises(Damaged, match="bytes"):
            sealed_params.load_params(saved)


def test_another_shards_parameters_of_the_same_size_are_damage(saved: Path) -> None:
    other = saved.with_name("other.safetensors")
    sealed_params.save_params(other, {name: tensor + 1 for name, tensor in PARAMS.items()}, RECORD)
    assert other.stat().st_size == saved.stat().st_size
    saved.write_bytes(other.read_bytes())
    with pytest.raises(Damaged, match="checksum"):
        sealed_params.load_params(saved)


def test_another_shards_record_is_damage(saved: Path) -> None:
    other = saved.with_name("other.safetensors")
    sealed_params.save_params(other, {name: tensor + 1 for name, tensor in PARAMS.items()}, RECORD)
    sealed_params.record_path(saved).write_bytes(sealed_params.record_path(other).read_bytes())
    with pytest.raises(Damaged, match="checksum"):
        sealed_params.load_params(saved)


@pytest.mark.parametrize(
    "edit",
    [{"seeds": [3, 5]}, {"format": 2}, {"bytes": 1}, {"sha256": "0" * 64}, {"extra": 1}, {"record_sha256": None}],
    ids=str,
)
def test_an_edited_record_is_damage(saved: Path, edit: dict[str, Any]) -> None:
    place = sealed_params.record_path(saved)
    place.write_text(json.dumps({**json.loads(place.read_text()), **edit}))
    with pytest.raises(Damaged, match=str(place)):
        sealed_params.load_params(saved)


def test_a_folder_in_place_of_a_file_is_an_error_of_the_store(saved: Path) -> None:
    saved.unlink()
    saved.mkdir()
    damaged(saved)


# Hostile files, with sizes and checksums that fit


def hostile(path: Path, content: bytes) -> Path:
    """A file as an attacker would leave it, with a record that vouches for it."""
    path.write_bytes(content)
    body = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    json_files.write_json(sealed_params.record_path(path), {**body, "record_sha256": digest})
    return path


def header(description: Any, length: int | None = None, data: bytes = b"\0" * 16) -> bytes:
    text = description if isinstance(description, bytes) else json.dumps(description).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def tensor(**changes: Any) -> dict[str, Any]:
    return {"t": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16], **changes}}


def test_these_hostile_files_differ_from_a_good_one_in_what_they_say(tmp_path: Path) -> None:
    loaded, _ = sealed_params.load_params(hostile(tmp_path / "x.safetensors", header(tensor())))
    assert torch.equal(loaded["t"], torch.zeros(4))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 4,
        header(tensor(), length=2**63),
        header(tensor(), length=10**9),
        header(b"{" * 200),
        header(b"\xff" * 40),
        header([1, 2]),
        header({"t": 3}),
        header(tensor(data_offsets=[0, 10**12])),
        header(tensor(data_offsets=[-4, 12])),
        header(tensor(data_offsets=[16, 0])),
        header(tensor(data_offsets=[8, 24])),
        header(tensor(shape=[10**12])),
        header(tensor(shape=[2**62, 2**62])),
        header(tensor(shape=[-4])),
        header(tensor(shape="four")),
        header(tensor(dtype="OBJECT")),
        header({**tensor(), "u": tensor()["t"]}),
        b"\x80\x04\x95cposix\nsystem\n",
    ],
)
def test_hostile_headers_are_refused_as_damage(tmp_path: Path, content: bytes) -> None:
    path = hostile(tmp_path / "x.safetensors", content)
    with pytest.raises(Damaged, match="not a safetensors file") as caught:
        sealed_params.load_params(path)
    assert str(path) in str(caught.value)


@FUZZ
@given(content=st.binary(max_size=60).map(lambda data: header(data)) | st.binary(max_size=60))
def test_any_bytes_with_a_fitting_record_are_parameters_or_damage(tmp_path: Path, content: bytes) -> None:
    path = hostile(tmp_path / "x.safetensors", content)
    try:
        sealed_params.load_params(path)
    except Damaged as error:
        assert str(path) in str(error)


# JSON


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"{'a': 1}", b"[" * 100_000, b"9" * 5000])
def test_what_is_no_json_is_damage(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(Damaged, match=str(path)):
        json_files.read_json(path)


def test_missing_json_is_an_error_of_the_store_but_no_damage(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"none\.json: cannot be read: No such file or directory$") as caught:
        json_files.read_json(tmp_path / "none.json")
    assert not isinstance(caught.value, Damaged)


def test_json_is_utf8_that_people_can_read(tmp_path: Path) -> None:
    json_files.write_json(tmp_path / "x.json", {"a": [1, 2.5], "name": "zürich"})
    assert "zürich" in (tmp_path / "x.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("other", [{}, {"bytes": "8", "sha256": "0"}, {"bytes": 8, "sha256": 0}], ids=str)
def test_a_sealed_document_of_another_kind_is_no_record(saved: Path, other: dict[str, Any]) -> None:
    json_files.write_sealed(sealed_params.record_path(saved), other)
    damaged(saved, sealed_params.record_path(saved))


def test_a_pipe_or_a_device_is_never_read(tmp_path: Path, saved: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "endless").symlink_to("/dev/zero")
    for name in ("pipe", "endless"):
        with pytest.raises(Damaged, match="no regular file"):
            json_files.read_json(tmp_path / name)
    saved.unlink()
    os.mkfifo(saved)
    assert "no regular file" in damaged(saved)


def test_json_without_end_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "x.json").open("wb") as file:
        file.truncate(json_files.MAX_JSON + 1)
    with pytest.raises(Damaged, match="bytes"):
        json_files.read_json(tmp_path / "x.json")


def test_a_sealed_document_comes_back_and_any_change_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    json_files.write_sealed(path, {"a": (1, 2.5), "names": {1: "one", 10: "ten", 9: "nine"}})
    whole = json_files.read_json(path)
    assert json_files.unsealed(path, whole) == {"a": [1, 2.5], "names": {"1": "one", "10": "ten", "9": "nine"}}
    for other in ({**whole, "a": 3}, {k: v for k, v in whole.items() if k != json_files.SEAL}, [], None, {}):
        with pytest.raises(Damaged, match="checksum"):
            json_files.unsealed(path, other)


def test_what_a_killed_process_had_begun_is_tidied_away_and_nothing_else(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(Path, "unlink", lambda *args, **options: None)  # as if there had been no time to clean up
    fail_at(monkeypatch, "replace", KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        files.write_bytes(tmp_path / "x.safetensors", b"half")
    monkeypatch.undo()
    for name in (".lock", ".notes.txt", "x.json"):
        (tmp_path / name).touch()
    assert len(names(tmp_path)) == 4
    files.tidy(tmp_path, tmp_path / "none")
    assert names(tmp_path) == [".lock", ".notes.txt", "x.json"]


def test_a_place_that_may_not_be_looked_at_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(path: Path) -> bool:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "exists", forbidden)
    with pytest.raises(StoreError, match="cannot be read: Permission denied") as caught:
        files.exists(tmp_path / "x")
    assert str(tmp_path / "x") in str(caught.value)


# Each message, limit and order that matters


def test_what_is_removed_is_that_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = tmp_path / "kept"
    (kept / "inner").mkdir(parents=True)
    (tmp_path / "link").symlink_to(kept)
    (tmp_path / "file").touch()
    (tmp_path / "folder" / "inner").mkdir(parents=True)
    for name in ("link", "file", "folder", "nothing"):
        files.remove(tmp_path / name)
    assert names(tmp_path) == ["kept"] and names(kept) == ["inner"]
    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(StoreError, match=r"file: cannot be deleted: Permission denied$"):
        files.remove(tmp_path / "file")


def refuse(*given: object, **options: object) -> None:
    raise PermissionError(errno.EACCES, "Permission denied")


@pytest.mark.parametrize("failing", [(outside, "load_file"), (os, "open")], ids=["values", "checksum"])
def test_a_file_that_may_not_be_read_says_why(
    saved: Path, monkeypatch: pytest.MonkeyPatch, failing: tuple[object, str]
) -> None:
    monkeypatch.setattr(*failing, refuse)
    with pytest.raises(StoreError, match=r"shard\.safetensors(\.json)?: cannot be read: Permission denied$"):
        sealed_params.load_params(saved)


def test_a_file_may_have_as_many_bytes_as_its_values_and_a_header(saved: Path, monkeypatch) -> None:
    size = saved.stat().st_size
    monkeypatch.setattr(sealed_params, "MAX_HEADER", 100)
    assert sealed_params.load_params(saved, at_most=size - 100)[0].keys() == PARAMS.keys()
    with pytest.raises(Damaged, match=rf"shard\.safetensors: {size} bytes, but no such file has more than {size - 1}$"):
        sealed_params.load_params(saved, at_most=size - 101)


def test_a_size_that_differs_is_told_with_the_one_that_was_expected(saved: Path) -> None:
    size = saved.stat().st_size
    saved.write_bytes(saved.read_bytes()[:-3])
    assert f"{size - 3} bytes, expected {size};" in damaged(saved)


def test_a_folder_that_cannot_be_made_is_told_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    files.make_folder(tmp_path / "a" / "b", "do that")
    files.make_folder(tmp_path / "a" / "b", "do that")
    with pytest.raises(StoreError, match=r"file/x: cannot be written: Not a directory; do that$"):
        files.make_folder(tmp_path / "file" / "x", "do that")


def test_a_file_was_written_when_its_record_was(saved: Path) -> None:
    assert sealed_params.written(saved) == sealed_params.record_path(saved).stat().st_mtime_ns
    sealed_params.record_path(saved).unlink()
    assert sealed_params.written(saved) == 0


def test_the_name_of_a_document_does_not_depend_on_its_order() -> None:
    assert (
        json_files.digest({"a": 1, "b": 2})
        == json_files.digest({"b": 2, "a": 1})
        != json_files.digest({"a": 1, "b": 3})
    )
