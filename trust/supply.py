"""What is installed: locked with hashes, the lock fits what the project asks for, and the wheel works by itself."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from trust.checks import Count, Setting
from trust.runs import CONFIG, PLUGIN

ROOT = Path(__file__).parents[1]
PICO = (
    *("run.device=cpu", "zoo.train=4", "zoo.select=1", "zoo.report=2", "zoo.pairs=2", "zoo.shard=4"),
    *("zoo.step1.steps=2", "zoo.step2.steps=2", "training.epochs=1", "training.batch_size=4"),
    "evaluation.examples=500",
)
"""Settings that make an example a matter of seconds."""
PINNED = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==(\S+)(.*(?:\n[ \t]+.*)*)", re.MULTILINE)


def locked_dependencies(setting: Setting, count: Count) -> None:
    """Every dependency is in the lock, in a version that fits, with SHA-256 hashes and without an address."""
    text = (ROOT / "requirements.lock").read_text()
    pinned: dict[str, list[tuple[str, str]]] = {}
    for name, version, rest in PINNED.findall(text):
        pinned.setdefault(canonicalize_name(name), []).append((version, rest))
    for name, locked in sorted(pinned.items()):
        without = [version for version, rest in locked if "--hash=sha256:" not in rest]
        count.add(f"{name} in the lock", [f"{version} has no hash" for version in without])
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = [*project["project"]["dependencies"], *project["dependency-groups"]["dev"]]
    for requirement in map(Requirement, wanted):
        versions = [version for version, _ in pinned.get(canonicalize_name(requirement.name), [])]
        fits = [
            version for version in versions if requirement.specifier.contains(version.rstrip(" ;\\"), prereleases=True)
        ]
        count.add(str(requirement), [] if fits else [f"the lock has {versions or 'none'}"])
    count.add("no address", ["the lock names an address"] if "://" in text else [])


def known_vulnerabilities(setting: Setting, count: Count) -> None:
    """`pip-audit` of the lock, where it is installed and reaches its index."""
    if importlib.util.find_spec("pip_audit") is None:
        count.notes.append("skipped: pip-audit is not installed")
        return
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(ROOT / "requirements.lock"), "--format", "json"]
    options = ["--disable-pip", "--no-deps", "--progress-spinner=off"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=300)
    try:
        dependencies = json.loads(done.stdout)["dependencies"]
    except ValueError:
        count.notes.append(f"skipped: {(done.stderr.strip().splitlines() or ['no answer'])[-1][:200]}")
        return
    unknown = [package["name"] for package in dependencies if "skip_reason" in package]
    if unknown:
        count.notes.append(f"not audited, as its index does not know them: {len(unknown)} of {len(dependencies)}")
    for package in dependencies:
        if package["name"] not in unknown:
            count.add(f"{package['name']} {package['version']}", [vuln["id"] for vuln in package["vulns"]])


def the_wheel_by_itself(setting: Setting, count: Count) -> None:
    """Build the wheel, install it beside the dependencies that are here, and use it outside the checkout."""
    wheels, home = setting.folder / "dist", setting.folder / "elsewhere"
    home.mkdir()
    _do([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(wheels), str(ROOT)], home)
    [wheel] = wheels.glob("*.whl")
    venv.create(setting.folder / "venv", with_pip=True)
    python = setting.folder / "venv" / "bin" / "python"
    _do([str(python), "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", str(wheel)], home)
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(_do([str(python), "-c", code], home).strip())
    # The wheel's own files come first; a path file makes the dependencies visible, but not their path files.
    (site / "dependencies.pth").write_text("\n".join(_dependencies()) + "\n")
    script = python.with_name("paramtrans")
    place = _do([str(python), "-c", "import paramtrans; print(paramtrans.__file__)"], home)
    count.add("imported from the wheel", [] if str(site) in place else [place])
    listed = _do([str(script), "plugins"], home)
    count.add(
        "plugins", [name for name in ("basic_block", "mixer", "functional", "mnist", "local") if name not in listed]
    )
    tiny, task = shutil.copy(CONFIG, home), shutil.copy(PLUGIN, home)
    out = _do([str(script), "run", tiny, "--plugin", task, "--json", "--quiet", "--set", "run.cache=cache"], home)
    count.add("a run", [] if '"translated"' in out else [out])
    example = shutil.copy(ROOT / "examples" / "mnist_conv_to_attn.toml", home)
    settings = [word for text in PICO for word in ("--set", text)]
    out = _do([str(script), "run", example, "--json", "--quiet", "--set", "run.cache=cache", *settings], home)
    count.add("a run of an example", [] if '"translated"' in out else [out])
    shipped = _do(
        [
            str(python),
            "-c",
            "from paramtrans_mnist.shipped import extract; print(extract(__import__('pathlib').Path('x')))",
        ],
        home,
    )
    count.add("the shipped data", [] if shipped.strip() == "x" else [shipped])


def _dependencies() -> list[str]:
    """Folders with installed packages; the project itself is installed there by a path file, which is not followed."""
    folders = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    return sorted(folders | {path for path in sys.path if path.endswith("site-packages")})


def _do(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}: {done.stdout[-1500:]}{done.stderr[-1500:]}")
    return done.stdout
