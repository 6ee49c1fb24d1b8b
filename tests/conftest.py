"""Every test has a cache of its own kind: data is unpacked once for all, zoos are made afresh."""

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARAMTRANS_CACHE", str(tmp_path / "cache"))
