"""Plugins as other people install them: good ones are found with their provenance, broken ones do no harm."""

from __future__ import annotations

import pytest

from paramtrans.errors import NameConflict, PluginLoadError, UnknownName

HEADER = "from paramtrans import Component, hookimpl\n"
GOOD = (
    HEADER
    + """
@hookimpl
def paramtrans_augmenters():
    return [Component("shake", "shakes parameters", "acme_good.shake:Shake")]
"""
)
SHAKE = """
from paramtrans.api.augmenter import Augmenter

class Shake(Augmenter):
    def __call__(self, params, generator):
        return params
"""
FIRST_PARTY = {"basic_block", "mixer", "noise", "functional", "mnist", "zero_block", "local", "run"}

BROKEN = {
    "import error": ("import no_such_module_of_acme\n", "no_such_module_of_acme"),
    "syntax error": ("def broken(:\n", "SyntaxError"),
    "exit at import": ("raise RuntimeError('no licence')\n", "no licence"),
    "system exit at import": ("raise SystemExit(3)\n", "SystemExit"),
    "hook that raises": (
        HEADER + "@hookimpl\ndef paramtrans_translators():\n    raise ValueError('hook is broken')\n",
        "hook is broken",
    ),
    "hook that returns no list": (
        HEADER + "@hookimpl\ndef paramtrans_translators():\n    return None\n",
        "paramtrans_translators",
    ),
    "hook that returns no records": (
        HEADER + "@hookimpl\ndef paramtrans_translators():\n    return ['lookup']\n",
        "Component",
    ),
    "wrong argument name": (HEADER + "@hookimpl\ndef paramtrans_run_started(folder):\n    pass\n", "folder"),
    "unknown hook": (
        HEADER + "@hookimpl\ndef paramtrans_transators():\n    return []\n",
        'did you mean "paramtrans_translators"',
    ),
    "later hook version": ("PARAMTRANS_HOOK_VERSION = 99\n" + GOOD, "hook version 99"),
}


@pytest.fixture
def good(site):
    site.install("acme_good", GOOD)
    (site.path / "acme_good" / "shake.py").write_text(SHAKE)
    return site


def test_a_good_plugin_is_listed_with_distribution_and_version(good) -> None:
    rows, _ = good.listing()
    assert {
        "kind": "augmenter",
        "name": "shake",
        "summary": "shakes parameters",
        "distribution": "acme-good",
        "version": "1.0",
    } in rows


def test_every_row_of_the_listing_has_exactly_the_promised_keys(good) -> None:
    rows, warnings = good.listing()
    assert warnings == ""
    assert all(list(row) == ["kind", "name", "summary", "distribution", "version"] for row in rows)
    assert {row["name"] for row in rows} >= FIRST_PARTY


def test_a_good_plugin_can_be_used(good) -> None:
    registry = good.load().registry()
    assert type(registry.create("augmenter", "shake")).__name__ == "Shake"
    assert registry.not_loaded == ()


def test_the_table_names_the_provider(good) -> None:
    done = good.command("plugins")
    assert done.returncode == 0
    row = next(line for line in done.stdout.splitlines() if " shake " in line)
    assert "acme-good 1.0" in row


@pytest.mark.parametrize(("code", "reason"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_plugin_is_a_warning_with_provider_and_reason(good, code: str, reason: str) -> None:
    good.install("acme_broken", code, version="0.3")
    registry = good.load().registry()
    assert {entry.name for entry in registry} >= FIRST_PARTY | {"shake"}
    [line] = registry.not_loaded
    assert line.startswith("acme-broken 0.3")
    assert reason in line


@pytest.mark.parametrize("kind", ["import error", "hook that raises", "wrong argument name"])
def test_the_command_line_survives_a_broken_plugin(good, kind: str) -> None:
    code, reason = BROKEN[kind]
    good.install("acme_broken", code, version="0.3")
    rows, warnings = good.listing()
    assert {row["name"] for row in rows} >= FIRST_PARTY | {"shake"}
    assert "not loaded: acme-broken 0.3" in warnings
    assert reason in warnings


def test_a_plugin_with_one_wrong_hook_is_left_out_whole(good) -> None:
    code = HEADER + (
        "@hookimpl\ndef paramtrans_augmenters():\n    return [Component('half', 'a', 'acme_half.plugin:X')]\n"
        "@hookimpl\ndef paramtrans_epoch_ended(number):\n    pass\n"
    )
    good.install("acme_half", code)
    registry = good.load().registry()
    assert "half" not in {entry.name for entry in registry}
    assert {entry.name for entry in registry} >= FIRST_PARTY | {"shake"}
    assert ["acme-half 1.0" in line and "number" in line for line in registry.not_loaded] == [True]


def test_an_entry_point_without_its_module_is_a_warning(good) -> None:
    good.install("acme_gone", "", module="acme_gone.nowhere")
    [line] = good.load().registry().not_loaded
    assert line.startswith("acme-gone 1.0") and "acme_gone.nowhere" in line


def test_distributions_of_a_broken_plugin_are_told_where_its_name_is_asked_for(good) -> None:
    good.install("acme_mixers", "import acme\n", version="0.3")
    with pytest.raises(UnknownName) as caught:
        good.load().registry().find("translator", "acme_mixer")
    assert "not loaded: acme-mixers 0.3 (ModuleNotFoundError: No module named 'acme')" in str(caught.value)


def test_a_module_that_is_not_found_is_told_with_where_to_put_it(good) -> None:
    far = '[Component("far", "missing", "nowhere_far.block:Far")]'
    good.install("acme_far", HEADER + f"@hookimpl\ndef paramtrans_translators():\n    return {far}\n")
    with pytest.raises(PluginLoadError, match=r"No module named 'nowhere_far'; .*PYTHONPATH"):
        good.load().registry().load("translator", "far")


def test_a_component_that_cannot_be_imported_is_listed_and_fails_only_when_named(good) -> None:
    target = '[Component("far", "missing", "acme_far.missing:Far"), Component("odd", "x", "acme_far.plugin:Odd")]'
    good.install("acme_far", HEADER + f"@hookimpl\ndef paramtrans_translators():\n    return {target}\n")
    registry = good.load().registry()
    assert registry.not_loaded == ()
    assert registry.find("translator", "far").provider.distribution == "acme-far"
    with pytest.raises(PluginLoadError, match=r'translator "far" of acme-far 1\.0 .*acme_far\.missing:Far.*missing'):
        registry.load("translator", "far")
    with pytest.raises(PluginLoadError, match=r'translator "odd" of acme-far 1\.0 .*Odd'):
        registry.load("translator", "odd")


def test_a_clash_names_both_providers_and_only_when_the_name_is_used(good) -> None:
    clash = HEADER + "@hookimpl\ndef paramtrans_translators():\n    return [Component('mixer', 'other', 'acme:M')]\n"
    good.install("acme_clash", clash)
    registry = good.load().registry()
    assert registry.find("translator", "mlp").provider.distribution == "paramtrans"
    with pytest.raises(NameConflict) as caught:
        registry.find("translator", "mixer")
    assert "acme-clash 1.0" in str(caught.value) and "paramtrans 0." in str(caught.value)


def test_an_adapter_that_nobody_names_and_nobody_can_import_stops_no_translation(good, support, caplog) -> None:
    from torch import nn

    import paramtrans

    adapters = '[Component("far", "x", "acme_far.missing:Far"), Component("basic_block", "x", "acme_far.missing:Far")]'
    good.install("acme_far", HEADER + f"@hookimpl\ndef paramtrans_block_adapters():\n    return {adapters}\n")
    loaded = good.load()
    loaded.load_file(support / "linear_blocks.py")
    registry, network = loaded.registry(), nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 6))
    for _ in range(2):
        small = paramtrans.translate(network, "prune", registry=registry)
        assert small[0].out_features == 6
    assert caplog.text.count('left out: block_adapter "far" of acme-far 1.0 cannot be loaded') == 1
    assert caplog.text.count('left out: block_adapter "basic_block" is provided by') == 1


def test_the_same_name_in_two_kinds_is_no_clash(site) -> None:
    registry = site.load().registry()
    assert registry.find("block_adapter", "mlp").kind == "block_adapter"
    assert registry.find("translator", "mlp").kind == "translator"


def test_a_distribution_seen_on_two_paths_is_loaded_once(good, tmp_path, monkeypatch) -> None:
    twin = tmp_path / "twin"
    twin.mkdir()
    for path in good.path.glob("*.dist-info"):
        (twin / path.name).mkdir()
        for file in path.iterdir():
            (twin / path.name / file.name).write_bytes(file.read_bytes())
    monkeypatch.syspath_prepend(str(twin))
    registry = good.load().registry()
    assert [entry.provider.distribution for entry in registry if entry.name == "shake"] == ["acme-good"]
    assert registry.not_loaded == ()


@pytest.mark.parametrize(
    ("kind", "typed", "meant"),
    [
        ("translator", "mixr", "mixer"),
        ("block_adapter", "basicblock", "basic_block"),
        ("augmenter", "shke", "shake"),
        ("task", "minst", "mnist"),
        ("rival", "zero-block", "zero_block"),
    ],
)
def test_a_near_name_is_suggested(good, kind: str, typed: str, meant: str) -> None:
    with pytest.raises(UnknownName, match=f'unknown {kind.replace("_", " ")} "{typed}"; did you mean "{meant}"'):
        good.load().registry().find(kind, typed)


def test_an_unknown_name_is_answered_by_what_there_is_and_who_has_it(good) -> None:
    with pytest.raises(UnknownName) as caught:
        good.load().registry().find("augmenter", "xyzzy")
    message = str(caught.value)
    assert "did you mean" not in message
    assert "available: shake (acme-good 1.0)" in message and "--plugin" in message
    assert "mask, noise, " in message and "(paramtrans 0." in message


def test_an_unknown_kind_of_command_is_a_mistake_of_the_users(good) -> None:
    done = good.command("plugin")
    assert done.returncode == 2
    assert "plugin" in done.stderr and "Traceback" not in done.stderr


def test_an_installed_command_appears_in_help_without_being_imported(good) -> None:
    announced = '[Component("prune", "Delete old runs", "acme_cli.nowhere:prune")]'
    good.install("acme_cli", HEADER + f"@hookimpl\ndef paramtrans_commands():\n    return {announced}\n")
    done = good.command("--help")
    assert done.returncode == 0 and "Delete old runs" in done.stdout
    failed = good.command("prune")
    assert failed.returncode == 2
    assert 'command "prune" of acme-cli 1.0' in failed.stderr and "Traceback" not in failed.stderr


def test_an_installed_command_runs(good) -> None:
    code = (
        HEADER
        + """
import click

@click.command()
def hello():
    click.echo("hello from acme")

@hookimpl
def paramtrans_commands():
    return [Component("hello", "Say hello", "acme_hello.plugin:hello")]
"""
    )
    good.install("acme_hello", code)
    done = good.command("hello")
    assert (done.returncode, done.stdout) == (0, "hello from acme\n")
