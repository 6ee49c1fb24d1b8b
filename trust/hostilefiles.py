"""Translators, records and run folders made to harm whoever loads them."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from paramtrans.storage import json_files
from trust.checks import Count, Setting
from trust.hostile import Case, attempt, seal, write
from trust.runs import Shell, undisturbed


class Canary:
    """Unpickling it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def hostile_files(setting: Setting, count: Count) -> None:
    """Translators, records and run folders made to harm whoever loads them."""
    whole, _ = undisturbed(setting.folder.parent / "undisturbed")
    attempt(setting, count, [*_weights(whole), *_documents(whole), *_links(whole)])


def _weights(whole: Shell) -> Iterator[Case]:
    """A translator whose weights are hostile, though all checksums fit."""
    good = (whole.run / "translator" / "translator.safetensors").read_bytes()
    names = list(json.loads(good[8 : 8 + struct.unpack("<Q", good[:8])[0]]))
    header_: dict[str, Any] = {"t": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}
    headers: dict[str, Any] = {
        "of a length that lies": (header_, 2**63),
        "of a length beyond the file": (header_, 10**9),
        "with offsets beyond the file": ({"t": {**header_["t"], "data_offsets": [0, 10**12]}}, None),
        "with negative offsets": ({"t": {**header_["t"], "data_offsets": [-4, 12]}}, None),
        "with a shape that lies": ({"t": {**header_["t"], "shape": [10**12]}}, None),
        "with a shape that overflows": ({"t": {**header_["t"], "shape": [2**62, 2**62]}}, None),
        "with overlaps": ({**header_, "u": header_["t"]}, None),
        "of objects": ({"t": {**header_["t"], "dtype": "OBJECT"}}, None),
        "with a huge name": ({"x" * 900_000: header_["t"]}, None),
        "with many tensors": (
            {f"t{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(9999)},
            None,
        ),
        "with the right names and no values": (
            {name: {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for name in names},
            None,
        ),
        "of deep JSON": (b"[" * 900_000, None),
        "of no JSON": (b"\xff" * 900, None),
    }
    for name, (header, length) in headers.items():
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        content = struct.pack("<Q", len(text) if length is None else length) + text + b"\0" * 16
        yield f"a header {name}", lambda folder, content=content: _translator(folder, whole, content)
    yield "a pickle", lambda folder: _translator(folder, whole, pickle.dumps(Canary(folder / "outside" / "owned")))
    yield "a torch file", lambda folder: _translator(folder, whole, _torch(folder))
    yield "a zip of zeros", lambda folder: _translator(folder, whole, _zip(folder))
    yield "a file of a terabyte", lambda folder: _sparse(folder, whole)


def _documents(whole: Shell) -> Iterator[Case]:
    """Descriptions and records, sealed where that could help them."""
    contents = {
        "deep JSON": b"[" * 2_000_000,
        "deep objects": b'{"a":' * 2_000_000,
        "a number without end": b'{"format": ' + b"9" * 2_000_000 + b"}",
        "text": b'"' + b"x" * 2_000_000 + b'"',
    }
    for name, content in contents.items():
        yield f"a description of {name}", lambda folder, c=content: _described(folder, whole, c)
        yield (
            f"a run.json of {name}",
            lambda folder, c=content: [*("run", "--from", write(folder / "run.json", c), "--quiet")],
        )
    for changes in (
        {"translator": {"name": "mlp", "width": 10**10, "layers": 2}},
        {"translator": {"name": "mlp", "width": 4, "layers": 10**9}},
        {"translator": {"name": "os:system"}},
        {"translator": {"name": "../../x"}},
        {"source": {"name": "basic_block", "channels": 10**10}},
        {"target": {"name": "conv", "channels": 4, "hidden": 10**18}},
    ):
        yield f"a description with {changes}", lambda folder, c=changes: _edited(folder, whole, c)
    for changes in (
        {"config": {"zoo": {}}},
        {"config": {"a": 10**400}},
    ):
        yield f"a run.json with {changes}"[:60], lambda folder, c=changes: _recorded(folder, whole, c)


def _links(whole: Shell) -> Iterator[Case]:
    for name in ("translator", "checkpoint", "tensorboard", "report.html", "metrics.jsonl", "run.json", ".lock"):
        yield f"{name} is a link", lambda folder, name=name: _linked(folder, name)
    for name in ("translator.json", "translator.safetensors", "translator.safetensors.json"):
        yield f"{name} is a pipe", lambda folder, name=name: _piped(folder, whole, name, None)
        yield f"{name} is a device", lambda folder, name=name: _piped(folder, whole, name, "/dev/zero")
        yield f"{name} is a circle", lambda folder, name=name: _piped(folder, whole, name, name)
    yield "a folder of others", _others


def _translator(folder: Path, whole: Shell, content: bytes) -> list[str]:
    """A translator with these weights, whose checksums all fit."""
    copied = copy_of(folder, whole)
    write(copied / "translator.safetensors", content)
    return _sealed(copied, len(content), hashlib.sha256(content).hexdigest())


def _sealed(copied: Path, size: int, checksum: str) -> list[str]:
    seal(copied / "translator.safetensors.json", {"format": 1, "bytes": size, "sha256": checksum})
    return edit(copied, {"weights_sha256": checksum})


def edit(copied: Path, changes: dict[str, Any]) -> list[str]:
    document = json.loads((copied / "translator.json").read_bytes())
    del document[json_files.SEAL]
    seal(copied / "translator.json", {**document, **changes})
    return ["load", str(copied)]


def _edited(folder: Path, whole: Shell, changes: dict[str, Any]) -> list[str]:
    return edit(copy_of(folder, whole), changes)


def _described(folder: Path, whole: Shell, content: bytes) -> list[str]:
    copied = copy_of(folder, whole)
    write(copied / "translator.json", content)
    return ["load", str(copied)]


def _recorded(folder: Path, whole: Shell, changes: dict[str, Any]) -> list[str]:
    document = whole.record()
    del document[json_files.SEAL]
    seal(folder / "run.json", {**document, **changes})
    return ["run", "--from", str(folder / "run.json"), "--quiet", "--set", "zoo.train=no"]


def _sparse(folder: Path, whole: Shell) -> list[str]:
    copied = copy_of(folder, whole)
    with (copied / "translator.safetensors").open("r+b") as file:
        file.truncate(2**40)
    return _sealed(copied, 2**40, "0" * 64)


def copy_of(folder: Path, whole: Shell) -> Path:
    copied = folder / "translator"
    copied.mkdir()
    for path in (whole.run / "translator").iterdir():
        (copied / path.name).write_bytes(path.read_bytes())
    return copied


def _torch(folder: Path) -> bytes:
    import torch

    torch.save({"t": Canary(folder / "outside" / "owned")}, folder / "x.pt")
    return (folder / "x.pt").read_bytes()


def _zip(folder: Path) -> bytes:
    with zipfile.ZipFile(folder / "x.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("../../outside/owned", b"\0" * 50_000_000)
    return (folder / "x.zip").read_bytes()


def _linked(folder: Path, name: str) -> list[str]:
    """A run folder, as it might be copied from a stranger, with a link to what lies outside."""
    shell = Shell(folder)
    shell.run.mkdir()
    target = folder / "outside" / ("mine.txt" if "." in name else "")
    (shell.run / name).symlink_to(target)
    return shell.arguments("--fresh")


def _piped(folder: Path, whole: Shell, name: str, target: str | None) -> list[str]:
    copied = copy_of(folder, whole)
    (copied / name).unlink()
    if target is None:
        os.mkfifo(copied / name)
    else:
        (copied / name).symlink_to(target)
    return ["load", str(copied)]


def _others(folder: Path) -> list[str]:
    shell = Shell(folder)
    (shell.run / "tensorboard").mkdir(parents=True)
    (shell.run / "tensorboard" / "mine").touch()
    return shell.arguments("--fresh")
