"""Real distributions, made by a test: a package with metadata and entry points in a folder on the path."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from paramtrans.plugins import Plugins


@dataclass(frozen=True)
class Site:
    """A folder as `site-packages` is, with the distributions a test installs there."""

    path: Path

    def install(self, package: str, code: str, distribution: str = "", version: str = "1.0", module: str = "") -> str:
        """Install a plugin whose module has `code`; returns the distribution's name."""
        name = distribution or package.replace("_", "-")
        folder = self.path / package
        folder.mkdir()
        (folder / "__init__.py").touch()
        (folder / "plugin.py").write_text(dedent(code))
        info = self.path / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[paramtrans]\n{package} = {module or f'{package}.plugin'}\n")
        importlib.invalidate_caches()
        return name

    def load(self) -> Plugins:
        """A fresh manager that has seen everything installed, first-party plugins too."""
        loaded = Plugins()
        loaded.load_entry_points()
        return loaded

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`paramtrans ARGUMENTS` in a process of its own that sees this site."""
        return subprocess.run(
            [sys.executable, "-m", "paramtrans.cli.main", *arguments],
            env={**os.environ, "PYTHONPATH": str(self.path)},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def listing(self) -> tuple[list[dict[str, Any]], str]:
        """What `paramtrans plugins --json` prints on standard output and on standard error; it must succeed."""
        done = self.command("plugins", "--json")
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        return json.loads(done.stdout), done.stderr


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    path = tmp_path / "site"
    path.mkdir()
    monkeypatch.syspath_prepend(str(path))
    before = set(sys.modules)
    yield Site(path)
    for name in {name for name in sys.modules if name.startswith("acme")} - before:
        del sys.modules[name]


@pytest.fixture
def one_file(tmp_path: Path) -> Callable[..., Path]:
    """Writes a one-file plugin."""

    def write(code: str, name: str = "extra.py") -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(dedent(code))
        return path

    return write
