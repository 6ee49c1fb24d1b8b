"""The documentation site: it builds strictly and without a network, and its reference is complete."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from paramtrans import _HOMES
from paramtrans.plugins import components, hookspecs
from paramtrans.testing import CHECKS
from paramtrans.testing.every import BASES

pytestmark = pytest.mark.docs

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site as `make docs` builds it."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def test_nothing_on_a_page_is_fetched_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        fetched = re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="(https?:[^"]+)"', page.read_text())
        assert [address for address in fetched if 'rel="canonical"' not in address] == [], page


def test_the_reference_names_every_component_hook_check_and_public_name(site: Path) -> None:
    pages = {path.parent.name: path.read_text() for path in (site / "reference").glob("*/index.html")}
    ours = [e for e in components() if e.kind in BASES and e.provider.distribution == "paramtrans"]
    assert all(f'id="{entry.kind}-{entry.name}"' in pages["components"] for entry in ours)
    hooks = [name for name in vars(hookspecs) if name.startswith("paramtrans_")]
    assert all(name in pages["hooks"] for name in hooks)
    assert all(check.name in pages["checks"] for check in CHECKS)
    assert all(f'id="paramtrans.{home}.{name}"' in pages["api"] for name, home in _HOMES.items())
    handed_on = [(package, name) for package in ("config", "testing", "hub") for name in names_of(package)]
    ids = set(re.findall(r'id="(paramtrans\.[\w.]+)"', pages["api"]))
    assert [pair for pair in handed_on if not any(i.endswith(f".{pair[1]}") for i in ids)] == []


def names_of(package: str) -> list[str]:
    return list(importlib.import_module(f"paramtrans.{package}").__all__)
