"""Checkpoints of others: tensors come in; code, pipes and packed archives stay out."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch

from paramtrans.errors import StoreError
from paramtrans.networks.loading.parameter_files import read_parameters
from paramtrans.storage import torch_checkpoint
from paramtrans.zoo.host_file import HostFile


class Code:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_tensors_come_back_as_they_were(tmp_path: Path) -> None:
    state = {"a": torch.randn(3, 2), "b": torch.arange(4)}
    torch.save(state, tmp_path / "x.pth")
    tensors = read_parameters(tmp_path / "x.pth")
    assert tensors.keys() == state.keys() and all(torch.equal(tensors[name], t) for name, t in state.items())


def test_files_of_other_kinds_are_told_apart(tmp_path: Path) -> None:
    numpy.save(tmp_path / "images.npy", numpy.zeros(3))
    (tmp_path / "page.html").write_text("<!doctype html>")
    for name in ("images.npy", "page.html"):
        with pytest.raises(StoreError, match=f"{name}: is no checkpoint, neither safetensors nor what torch.save"):
            torch_checkpoint.read(tmp_path / name)
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)), tmp_path / "script.pt")
    with zipfile.ZipFile(tmp_path / "script.pt") as plain, zipfile.ZipFile(tmp_path / "packed.pt", "w", 8) as packed:
        for member in plain.namelist():
            packed.writestr(member, plain.read(member))
    for name in ("script.pt", "packed.pt"):
        with pytest.raises(StoreError, match=r"it is a scripted module, torch\.jit"):
            torch_checkpoint.read(tmp_path / name)


@pytest.mark.parametrize("new", [True, False])
def test_code_is_refused_and_not_run(tmp_path: Path, new: bool) -> None:
    torch.save({"a": Code(tmp_path / "owned")}, tmp_path / "x.pth", _use_new_zipfile_serialization=new)
    (tmp_path / "y.pth").write_bytes(pickle.dumps(Code(tmp_path / "owned")))
    for name in ("x.pth", "y.pth"):
        with pytest.raises(StoreError, match="other objects are refused"):
            torch_checkpoint.read(tmp_path / name)
    assert not (tmp_path / "owned").exists()


def test_a_packed_archive_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"a": torch.zeros(100_000)}, tmp_path / "plain.pth")
    packed = zipfile.ZipFile(tmp_path / "packed.pth", "w", zipfile.ZIP_DEFLATED)
    with zipfile.ZipFile(tmp_path / "plain.pth") as plain, packed:
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))
    assert torch_checkpoint.read(tmp_path / "plain.pth")["a"].shape == (100_000,)
    monkeypatch.setattr(torch, "load", lambda *given, **options: pytest.fail("was read"))
    with pytest.raises(StoreError, match=r"packed archive of 40\d,\d{3} bytes"):
        torch_checkpoint.read(tmp_path / "packed.pth")
    with pytest.raises(StoreError, match="far more than the 1,000 that"):
        torch_checkpoint.read(tmp_path / "plain.pth", at_most=1_000)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_what_never_ends_is_not_begun(tmp_path: Path, suffix: str) -> None:
    pipe, circle = tmp_path / f"pipe{suffix}", tmp_path / f"circle{suffix}"
    os.mkfifo(pipe)
    circle.symlink_to(circle.name)
    (tmp_path / "empty").mkdir()
    for path, why in (
        (pipe, "no regular file"),
        (tmp_path / "empty", r"holds no \.safetensors"),
        (circle, "cannot be read"),
    ):
        with pytest.raises(StoreError, match=why):
            read_parameters(path)
    with pytest.raises(StoreError, match=r"none\.\w+: cannot be read"):
        read_parameters(tmp_path / f"none{suffix}")
    with pytest.raises(StoreError, match="no regular file"):
        HostFile(pipe)
