"""The distribution: an sdist, and a wheel built from it, that work outside the checkout; nothing is fetched."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BUILD = [sys.executable, "-m", "build", "--no-isolation", "--outdir"]
INSTALL = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the wheel is installed, as in `site-packages`."""
    folder = tmp_path_factory.mktemp("made")
    subprocess.run([*BUILD, str(folder), str(ROOT)], check=True, capture_output=True, timeout=300)
    assert [path.suffixes[-1] for path in sorted(folder.iterdir())] == [".whl", ".gz"]
    [wheel] = folder.glob("*.whl")
    subprocess.run([*INSTALL, str(folder / "site"), str(wheel)], check=True, capture_output=True, timeout=300)
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert not [name for name in names if name.startswith(("tests", "docs", "plugins/", "examples"))]
    return folder / "site"


def command(site: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "paramtrans.cli.main", *arguments],
        env={**os.environ, "PYTHONPATH": str(site)},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_it_is_the_installed_one_that_runs(site: Path, tmp_path: Path) -> None:
    code = "import paramtrans, paramtrans_mnist; print(paramtrans.__file__, paramtrans_mnist.__file__)"
    env = {**os.environ, "PYTHONPATH": str(site)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert all(Path(path).is_relative_to(site) for path in done.stdout.split())


def test_all_first_party_plugins_come_with_it(site: Path, tmp_path: Path) -> None:
    done = command(site, tmp_path, "plugins", "--json")
    assert done.returncode == 0 and done.stderr == ""
    offered = {(row["kind"], row["name"]) for row in json.loads(done.stdout)}
    assert {("task", "mnist"), ("translator", "equivariant"), ("command", "compare")} <= offered


@pytest.mark.slow  # `.ci/run` lets the wheel finish runs, with their pages, by `python -m trust the_wheel_by_itself`
def test_pages_and_data_come_with_it(site: Path, tmp_path: Path) -> None:
    golden, page = ROOT / "tests" / "golden" / "run", tmp_path / "page.html"
    done = command(site, tmp_path, "compare", str(golden), "--html", str(page))
    assert done.returncode == 0, done.stderr
    assert "--ink" in page.read_text()
    plan = command(site, tmp_path, "run", str(ROOT / "examples" / "mnist_conv_to_conv.toml"), "--dry-run", "--json")
    assert plan.returncode == 0 and json.loads(plan.stdout)
