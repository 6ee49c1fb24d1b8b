"""The rooms of the core: their faces, and that no import goes round in a circle."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
import subprocess
from pathlib import Path

import grimp
import pytest

import paramtrans

ROOT = Path(paramtrans.__file__).parent
FILES = [*ROOT.rglob("*.py"), *Path(__file__).parents[2].glob("plugins/*/paramtrans_*/**/*.py")]
"""Modules of the core and, in a checkout, of first-party plugins."""
VAGUE = {"found", "each", "own", "one", "goal", "told"}
"""Names that would suit any variable."""
ROOMS = [room.name for room in pkgutil.walk_packages(paramtrans.__path__, "paramtrans.") if room.ispkg]


def seen_by_type_checkers(room: str) -> set[str]:
    """Names that the room's `__init__` imports where only type checkers look."""
    tree = ast.parse((ROOT.parent / Path(*room.split("."), "__init__.py")).read_text())
    checked = next(node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    return {name.asname or name.name for node in checked.body for name in node.names}  # type: ignore[attr-defined]


@pytest.mark.parametrize("room", [room for room in ROOMS if room != "paramtrans.cli"])
def test_a_face_hands_on_what_type_checkers_see_and_hides_no_module(room: str) -> None:
    package = importlib.import_module(room)
    modules = {module.name for module in pkgutil.iter_modules(package.__path__)}
    assert set(package.__all__) == seen_by_type_checkers(room) == set(dir(package))
    assert not modules & set(package.__all__)
    assert all(getattr(package, name) is not None for name in package.__all__)
    with pytest.raises(AttributeError, match=f"'{room}' has no attribute 'nothing'"):
        _ = package.nothing


def test_no_import_goes_round_in_a_circle() -> None:
    """Not under `TYPE_CHECKING` either, nor through a face, which the contract on siblings does not see."""
    graph = grimp.build_graph("paramtrans", cache_dir=None)
    arrows = [
        (importer, imported)
        for importer in graph.modules
        for imported in graph.find_modules_directly_imported_by(importer)
    ]
    assert [arrow for arrow in arrows if graph.chain_exists(importer=arrow[1], imported=arrow[0])] == []


def test_no_file_is_longer_than_300_lines() -> None:
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert {path: count for path, count in lines.items() if count > 300} == {}


def test_nine_functions_of_ten_have_30_lines_or_fewer() -> None:
    nodes = [node for path in FILES for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))]
    functions = [node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    short = [function for function in functions if (function.end_lineno or 0) - function.lineno < 30]
    assert len(short) >= 0.9 * len(functions)


def test_variables_say_what_they_hold() -> None:
    called = []
    for path in FILES:
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        called += [(path, node.lineno, node.id) for node in nodes if isinstance(node, ast.Name)]
        called += [(path, node.lineno, node.arg) for node in nodes if isinstance(node, ast.arg)]
    assert [entry for entry in called if entry[2] in VAGUE] == []


def test_the_architecture_page_names_every_module() -> None:
    page = (Path(__file__).parents[2] / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    modules = [
        path.relative_to(ROOT).with_suffix("").parts for path in ROOT.rglob("*.py") if path.name != "__init__.py"
    ]
    missing = []
    for *folders, name in modules:
        packages = ["/".join(folders[:depth]) for depth in range(len(folders), 0, -1)]
        own_row = [row for package in packages for row in rows if row.startswith(f"| `{package}/`")]
        room = own_row[0] if own_row else "".join(rows)
        if folders[:1] not in (["cli"], ["testing"]) and f"`{name}`" not in room:  # these rooms are said in a word
            missing.append("/".join([*folders, name]))
    assert missing == []


def test_nothing_is_in_the_checkout_by_accident() -> None:
    root = ROOT.parent
    if not (root / ".git").exists():
        pytest.skip("no checkout")
    command = ["git", "ls-files", "-z"]
    names = subprocess.run(command, cwd=root, capture_output=True, check=True).stdout.decode("utf-8", "replace")
    tracked = [name for name in names.split("\0") if name]
    assert not [name for name in tracked if not re.fullmatch(r"[\w./+-]+", name, re.ASCII)]
    params = [name for name in tracked if Path(name).suffix in (".safetensors", ".pt", ".pth", ".pt2", ".onnx", ".npy")]
    assert not [
        name for name in params if not name.startswith(("tests/golden/", "examples/data/", "plugins/pretrained/"))
    ]
