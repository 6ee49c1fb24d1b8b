"""The plugins that a caller gives are those that are used: nothing behind the door asks for this process's own."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

import paramtrans
from paramtrans import hookimpl
from paramtrans.api.specs import Component
from paramtrans.networks import Allotment
from paramtrans.plugins import Plugins
from paramtrans.plugins.registry import Provider

CORE = Path(paramtrans.__file__).parent
ROOT = CORE.parent


def globally_asked(tree: ast.Module) -> Iterator[str]:
    """Functions that call `components()` or `plugins()` other than as the default of an argument of their own."""
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef):
            continue
        arguments = {a.arg for a in (*function.args.args, *function.args.kwonlyargs)} & {"registry", "loaded"}
        defaults = {
            id(value)
            for node in ast.walk(function)
            if isinstance(node, ast.BoolOp) and isinstance(node.values[0], ast.Name)
            for value in node.values[1:]
            if node.values[0].id in arguments
        }
        for node in ast.walk(function):
            called = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""
            if called in ("components", "plugins") and id(node) not in defaults:
                yield function.name


def test_only_the_command_line_asks_for_the_plugins_of_the_process() -> None:
    files = [p for p in (*CORE.rglob("*.py"), *ROOT.glob("plugins/*/paramtrans_*/*.py")) if "cli" not in p.parts]
    asking = {p.relative_to(ROOT).as_posix(): [*globally_asked(ast.parse(p.read_text()))] for p in files}
    assert {p: names for p, names in asking.items() if names} == {"paramtrans/plugins/manager.py": ["components"]}


@pytest.fixture
def private(fresh_plugins: Callable[[], Plugins]) -> Plugins:
    """Installed plugins, and `refit` under a name that only this set has."""
    fresh_plugins()
    private = Plugins()
    private.load_entry_points()

    target = private.registry().find("translator", "refit").component.target

    class Named:
        @hookimpl
        def paramtrans_translators(self) -> list[Component]:
            return [Component("only_here", "refit", target)]

    private.register(Named(), Provider("by hand", "1"))
    return private


def test_a_rule_for_widths_translates_with_the_caller_s_plugins(private: Plugins) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 4))
    batches = list(torch.randn(2, 32, 6))
    rule = Allotment(parameters=120, translator="only_here")
    small = paramtrans.translate(network, "only_here", widths=rule, calibrate=batches, registry=private.registry())
    assert sum(p.numel() for p in small.parameters()) <= 120
