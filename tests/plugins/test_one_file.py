"""One-file plugins: loaded where a person names the file, never because a config does."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from paramtrans import config
from paramtrans.cli.main import main
from paramtrans.errors import ConfigError, PluginLoadError
from paramtrans.plugins import Plugins

AUGMENTER = """
from paramtrans import Augmenter, Component, hookimpl

class {name}(Augmenter):
    def __call__(self, params, generator):
        return params

@hookimpl
def paramtrans_augmenters():
    return [Component("{entry}", "of a single file", f"{{__name__}}:{name}")]
"""


@pytest.fixture(autouse=True)
def _forget_files(fresh_plugins):
    """`fresh_plugins` clears what these tests leave in this process."""
    fresh_plugins()


def code(name: str = "Wobble", entry: str = "wobble") -> str:
    return AUGMENTER.format(name=name, entry=entry)


def test_its_components_are_found_and_created(one_file) -> None:
    loaded, path = Plugins(), one_file(code())
    loaded.load_file(path)
    registry = loaded.registry()
    assert registry.find("augmenter", "wobble").provider.distribution == str(path)
    assert type(registry.create("augmenter", "wobble")).__name__ == "Wobble"


def test_two_files_of_one_name_in_different_folders_both_work(one_file) -> None:
    loaded = Plugins()
    loaded.load_file(one_file(code("Wobble", "wobble"), "a/extra.py"))
    loaded.load_file(one_file(code("Jolt", "jolt"), "b/extra.py"))
    registry = loaded.registry()
    assert type(registry.create("augmenter", "jolt")).__name__ == "Jolt"
    assert type(registry.create("augmenter", "wobble")).__name__ == "Wobble"


def test_the_same_file_twice_is_one_plugin(one_file) -> None:
    loaded, path = Plugins(), one_file(code())
    loaded.load_file(path)
    loaded.load_file(str(path))
    assert len([entry for entry in loaded.registry() if entry.name == "wobble"]) == 1
    assert type(loaded.registry().create("augmenter", "wobble")).__name__ == "Wobble"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("def broken(:\n", "SyntaxError"),
        ("import no_such_module_of_mine\n", "no_such_module_of_mine"),
        ("raise RuntimeError('out of luck')\n", "out of luck"),
        ("PARAMTRANS_HOOK_VERSION = 0\n", "hook version 0"),
        ("from paramtrans import hookimpl\n@hookimpl\ndef paramtrans_task():\n    return []\n", "paramtrans_task"),
    ],
)
def test_a_broken_file_is_an_error_at_once_and_leaves_nothing_behind(one_file, content: str, reason: str) -> None:
    loaded, path, modules = Plugins(), one_file(content, "broken_one.py"), set(sys.modules)
    with pytest.raises(PluginLoadError) as caught:
        loaded.load_file(path)
    assert str(path) in str(caught.value) and reason in str(caught.value)
    assert list(loaded.registry()) == []
    assert not [name for name in set(sys.modules) - modules if "broken_one" in name]


def test_a_broken_file_does_not_disturb_what_was_loaded(one_file) -> None:
    loaded = Plugins()
    loaded.load_entry_points()
    before = [entry.name for entry in loaded.registry()]
    good_then_bad = code() + "@hookimpl\ndef paramtrans_run_started(folder):\n    pass\n"
    with pytest.raises(PluginLoadError):
        loaded.load_file(one_file(good_then_bad))
    assert [entry.name for entry in loaded.registry()] == before


@pytest.mark.parametrize("name", ["missing.py", "folder.py", "text.txt"])
def test_what_is_no_python_file_is_refused_by_name(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder.py").mkdir()
    (tmp_path / "text.txt").write_text("hello")
    with pytest.raises(PluginLoadError, match=f"--plugin .*{name}: no such Python file"):
        Plugins().load_file(tmp_path / name)


def test_the_listing_shows_it(one_file, capsys) -> None:
    path = one_file(code())
    assert main(["plugins", "--json", "--plugin", str(path)]) == 0
    shown = capsys.readouterr()
    assert '"name": "wobble"' in shown.out and str(path) in shown.out and shown.err == ""


def test_a_bad_plugin_option_ends_with_status_two_and_one_line(tmp_path: Path, capsys) -> None:
    assert main(["plugins", "--plugin", str(tmp_path / "none.py")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "none.py" in error


@pytest.mark.parametrize(
    "name", ["os:system", "paramtrans_translators.mlp:MLP", "./extra.py", "/tmp/extra.py:Wobble", "../mixer", ""]
)
def test_a_config_cannot_name_code_by_its_place(tiny_plugins, support: Path, name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.load(support / "tiny.toml", tiny_plugins.registry(), [f'translator.name="{name}"'])
    assert "translator.name" in str(caught.value) and "unknown translator" in str(caught.value)


@pytest.mark.parametrize("option", ["target", "module", "class", "plugin"])
def test_a_config_cannot_smuggle_code_in_as_an_option(tiny_plugins, support: Path, option: str) -> None:
    with pytest.raises(ConfigError, match=rf"translator\.{option}: unknown option"):
        config.load(support / "tiny.toml", tiny_plugins.registry(), [f'translator.{option}="os:system"'])


@pytest.mark.parametrize("key", ["plugins", "plugin", "plugin_files"])
def test_a_config_cannot_load_a_plugin_file(tiny_plugins, support: Path, one_file, key: str) -> None:
    marker = one_file("").with_name("was-run")
    path = one_file(f"open({str(marker)!r}, 'w')\n")
    for place in (key, f"run.{key}"):
        with pytest.raises(ConfigError, match=rf"{place}: unknown option"):
            config.load(support / "tiny.toml", tiny_plugins.registry(), [f'{place}="{path}"'])
    assert not marker.exists()


def test_without_its_file_the_plugin_of_a_config_is_unknown(support: Path, capsys) -> None:
    assert main(["run", str(support / "tiny.toml")]) == 2
    error = capsys.readouterr().err
    assert 'task.name: unknown task "tiny"' in error and "Traceback" not in error


def test_a_broken_plugin_is_named_when_a_config_wants_what_it_might_have(site, support: Path) -> None:
    site.install("acme_tasks", "import acme\n", version="0.3")
    with pytest.raises(ConfigError, match=r"not loaded: acme-tasks 0\.3 \(ModuleNotFoundError"):
        config.load(support / "tiny.toml", site.load().registry())


def test_a_component_that_cannot_be_imported_is_a_problem_of_the_config(tiny_plugins, site, support: Path) -> None:
    announced = '[Component("far", "missing", "acme_far.missing:Far")]'
    hook = f"@hookimpl\ndef paramtrans_translators():\n    return {announced}\n"
    site.install("acme_far", "from paramtrans import Component, hookimpl\n" + hook)
    loaded = site.load()
    loaded.load_file(support / "tiny_task.py")
    with pytest.raises(ConfigError, match=r"translator\.name: .*acme-far 1\.0 cannot be loaded"):
        config.load(support / "tiny.toml", loaded.registry(), ["translator=far"])
