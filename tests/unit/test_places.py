"""Places for what is kept meanwhile: compiled kernels, features; full, closed to us, or left behind by a signal."""

from __future__ import annotations

import gc
import os
import signal
import tempfile
from pathlib import Path

import pytest
import torch
from torch import nn

import paramtrans
from paramtrans.cli import main
from paramtrans.errors import StoreError
from paramtrans.networks.forward import spool
from paramtrans.networks.forward.spool import Spool
from paramtrans.utils import compiled


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Neither the package nor the home folder may be written; a folder that may."""
    monkeypatch.delenv(compiled.VARIABLE, raising=False)
    monkeypatch.delenv("PARAMTRANS_CACHE", raising=False)
    monkeypatch.setattr(os, "access", lambda path, mode: str(path).startswith(str(tmp_path)))
    return tmp_path


def test_kernels_are_kept_in_the_cache_that_is_named(closed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARAMTRANS_CACHE", str(closed / "cache"))
    compiled.find_room()
    assert os.environ.pop(compiled.VARIABLE) == str(closed / "cache" / "numba")


def test_or_in_a_temporary_folder(closed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    going: list[str] = []
    monkeypatch.setattr(compiled.atexit, "register", lambda remove, folder, **_: going.append(folder))
    compiled.find_room()
    place = os.environ.pop(compiled.VARIABLE)
    assert going == [place] and Path(place).is_dir()
    os.rmdir(place)


def test_no_room_for_kernels_anywhere_is_told(closed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**_: str) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "mkdtemp", full)
    with pytest.raises(StoreError, match=r"can be kept nowhere: .*No space left.*PARAMTRANS_CACHE"):
        compiled.find_room()


@pytest.mark.usefixtures("linear_blocks")
def test_a_full_folder_of_temporary_files_is_named_as_that(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    network = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 3)).eval()
    monkeypatch.setattr(spool, "save_file", full)
    monkeypatch.setattr(Spool.__init__, "__defaults__", (0,))
    with pytest.raises(StoreError, match=r"features cannot be kept there: No space left on device; .*TMPDIR"):
        paramtrans.translate(network, calibrate=torch.randn(32, 6), by="blocks")


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_signal_that_ends_a_command_takes_its_temporary_features_along(name: str) -> None:
    number = signal.Signals[name]
    before = signal.signal(number, signal.SIG_DFL)
    try:
        main._end_in_order()
        with pytest.raises(SystemExit, match=str(128 + number)):
            _ended_amid(number)
        gc.collect()
        assert not Path(PLACES[-1]).exists()
    finally:
        signal.signal(number, before)


PLACES: list[str] = []


def _ended_amid(number: int) -> None:
    kept = Spool(limit=0)
    kept.add(torch.ones(3))
    assert kept._folder is not None and os.listdir(kept._folder.name)
    PLACES.append(kept._folder.name)
    os.kill(os.getpid(), number)
