"""Every hook is documented, has its kind, and is used; listing and help stay fast."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from paramtrans.api.specs import Component
from paramtrans.plugins import Plugins, hookspecs
from paramtrans.plugins.registry import KINDS, Provider

HOOKS: dict[str, Callable[..., Any]] = {
    name: value for name, value in vars(hookspecs).items() if name.startswith("paramtrans_")
}
COVERED = {"paramtrans_zoo_started", "paramtrans_shard_finished", "paramtrans_zoo_finished"}
"""Hooks that no first-party plugin uses; `test_stopping.py` calls each."""


def test_there_are_hooks() -> None:
    assert {"paramtrans_block_adapters", "paramtrans_run_finished"} <= HOOKS.keys()


@pytest.mark.parametrize("name", HOOKS)
def test_every_hook_is_marked_as_a_specification(name: str) -> None:
    assert hasattr(HOOKS[name], "paramtrans_spec")


@pytest.mark.parametrize("name", HOOKS)
def test_every_hook_has_a_summary_and_an_example(name: str) -> None:
    doc = inspect.getdoc(HOOKS[name]) or ""
    summary, _, rest = doc.partition("\n")
    assert len(summary) > 20
    example = rest.partition("Example: `")[2]
    assert example, f"{name} has no line `Example: …`"
    assert ("Component(" if not inspect.signature(HOOKS[name]).parameters else f"def {name}(") in example


@pytest.mark.parametrize("name", HOOKS)
def test_every_hook_has_a_row_in_the_table_of_the_docs(name: str) -> None:
    table = (Path(__file__).parents[2] / "docs" / "plugins.md").read_text().partition("## Hooks")[2]
    rows = [line for line in table.splitlines() if line.startswith("| ") and f"`{name}`" in line.split("|")[1]]
    assert len(rows) == 1 and all(cell.strip() for cell in rows[0].split("|")[1:-1])


@pytest.mark.parametrize("name", [name for name in HOOKS if inspect.signature(HOOKS[name]).parameters])
def test_the_examples_of_lifecycle_hooks_are_accepted_as_they_stand(name: str) -> None:
    example = (inspect.getdoc(HOOKS[name]) or "").partition("Example: `")[2].rpartition("`")[0]
    scope: dict[str, Any] = {}
    exec(example, scope)
    loaded = Plugins()
    loaded.register(type("Plugin", (), {name: staticmethod(hookspecs.hookimpl(scope[name]))})(), Provider("x", "1"))


@pytest.mark.parametrize("name", [name for name in HOOKS if not inspect.signature(HOOKS[name]).parameters])
def test_the_examples_of_component_hooks_are_components(name: str) -> None:
    example = (inspect.getdoc(HOOKS[name]) or "").partition("Example: `")[2].rpartition("`")[0]
    [component] = eval(example, {"Component": Component})
    assert isinstance(component, Component) and ":" in component.target


@pytest.mark.parametrize("name", HOOKS)
def test_hook_arguments_have_no_defaults(name: str) -> None:
    assert all(p.default is p.empty for p in inspect.signature(HOOKS[name]).parameters.values())


def test_kinds_and_component_hooks_are_the_same() -> None:
    component_hooks = {name for name in HOOKS if not inspect.signature(HOOKS[name]).parameters}
    assert component_hooks == {f"paramtrans_{kind}s" for kind in KINDS}


@pytest.mark.parametrize("name", HOOKS)
def test_every_hook_is_used_by_a_first_party_plugin_or_covered_here(name: str) -> None:
    loaded = Plugins()
    loaded.load_entry_points()
    used = bool(getattr(loaded._manager.hook, name).get_hookimpls())
    assert used != (name in COVERED), f"{name}: use it in a first-party plugin, or cover it here and name it in COVERED"


def recorder() -> tuple[object, list[tuple[str, dict[str, Any]]]]:
    """A plugin with all lifecycle hooks, and the list of their calls."""
    calls: list[tuple[str, dict[str, Any]]] = []

    class Recorder:
        @hookspecs.hookimpl
        def paramtrans_run_started(self, run):
            calls.append(("started", {"run": run, "existed": run.dir.is_dir()}))

        @hookspecs.hookimpl
        def paramtrans_epoch_ended(self, epoch, metrics):
            calls.append(("epoch", {"epoch": epoch, "metrics": metrics}))

        @hookspecs.hookimpl
        def paramtrans_run_finished(self, result, run):
            calls.append(("finished", {"result": result, "run": run}))

    return Recorder(), calls


def test_lifecycle_hooks_are_called_in_order_with_what_they_promise(tiny_plugins, tiny_config) -> None:
    from paramtrans import run

    plugin, calls = recorder()
    tiny_plugins.register(plugin, Provider("recorder", "1"))
    result = run(tiny_config("training.epochs=2", "training.evaluate_every=2"), loaded=tiny_plugins)
    assert [name for name, _ in calls] == ["started", "epoch", "epoch", "finished"]
    (_, started), (_, first), (_, second), (_, finished) = calls
    assert started["existed"] and started["run"].dir == result.dir
    assert started["run"].config["translator"]["name"] == "mixer"
    assert (first["epoch"], set(first["metrics"])) == (1, {"loss", "lr"})
    assert (second["epoch"], set(second["metrics"])) == (2, {"loss", "lr", "select"})
    # "the object that `paramtrans run --json` prints"
    promised = result.as_dict()
    assert finished["result"].keys() >= promised.keys() - {"seconds"}
    assert finished["result"]["methods"] == promised["methods"]


@pytest.mark.parametrize(
    "error", [ValueError("no room"), SystemExit("no room")], ids=lambda error: type(error).__name__
)
def test_a_lifecycle_hook_that_raises_is_named_with_its_provider(tiny_plugins, tiny_config, error) -> None:
    from paramtrans import run
    from paramtrans.errors import PluginLoadError

    class Broken:
        @hookspecs.hookimpl
        def paramtrans_run_started(self):
            raise error

    tiny_plugins.register(Broken(), Provider("acme", "2.1"))
    with pytest.raises(
        PluginLoadError, match=rf"acme 2\.1, hook paramtrans_run_started: {type(error).__name__}: no room"
    ):
        run(tiny_config(), loaded=tiny_plugins)


LIGHT = {
    "import paramtrans": "import paramtrans",
    "help": "from paramtrans.cli.main import main; assert main(['--help']) == 0",
    "version": "from paramtrans.cli.main import main; assert main(['--version']) == 0",
    "plugins": "from paramtrans.cli.main import main; assert main(['plugins']) == 0",
    "plugins --json": "from paramtrans.cli.main import main; assert main(['plugins', '--json']) == 0",
    "components": "from paramtrans import components; list(components())",
}


@pytest.mark.parametrize("code", LIGHT.values(), ids=LIGHT.keys())
def test_light_things_do_not_import_torch(code: str) -> None:
    script = f"{code}\nimport sys\nheavy = {{'torch', 'torchvision', 'matplotlib', 'scipy'}} & set(sys.modules)\n"
    done = subprocess.run(
        [sys.executable, "-c", script + "sys.exit(f'imported {heavy}' if heavy else 0)"],
        capture_output=True,
        text=True,
        timeout=300,
        env=dict(os.environ),
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_public_names_are_listed_for_type_checkers() -> None:
    import paramtrans

    assert sorted(paramtrans.__all__) == sorted(["__version__", *paramtrans._HOMES])


def test_public_names_are_the_same_whatever_was_imported_before() -> None:
    """A public name that is also a module's is the module, once that is imported first."""
    code = (
        "import importlib, pkgutil, paramtrans\n"
        "rooms = ('runs.run', 'networks.translate', 'config.schema')\n"
        "for room in rooms: importlib.import_module(f'paramtrans.{room}')\n"
        "homes = {n: importlib.import_module(f'paramtrans.{home}') for n, home in paramtrans._HOMES.items()}\n"
        "wrong = [n for n, home in homes.items() if getattr(paramtrans, n) is not getattr(home, n)]\n"
        "import sys; sys.exit(f'not what they are in their module: {wrong}' if wrong else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
