"""What comes from outside and is not as it should be is answered in words: paths, arrays, checkpoints, factories."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from paramtrans import config, run
from paramtrans.api.adapter import check_fit
from paramtrans.api.specs import FeatureSpec
from paramtrans.cli import show
from paramtrans.cli.main import main
from paramtrans.errors import ConfigError, DataError, ParamtransError, PluginLoadError, SpecMismatch, StoreError
from paramtrans.networks.loading import architectures, parameter_files
from paramtrans.networks.loading.calibration import read_inputs
from paramtrans.plugins import Plugins, components
from paramtrans.storage import torch_checkpoint
from paramtrans.testing import results, subjects


@pytest.mark.parametrize(
    "array",
    [
        numpy.array(["a", "b"]),
        numpy.array([b"a", b"b"]),
        numpy.array(["2020-01-01"], dtype="datetime64[D]"),
        numpy.zeros(3, dtype=[("a", "f4"), ("b", "i4")]),
        numpy.array(3.0),
    ],
    ids=["text", "bytes", "dates", "structures", "no axis"],
)
def test_arrays_that_are_no_inputs(tmp_path: Path, array: Any) -> None:
    numpy.save(tmp_path / "x.npy", array)
    with pytest.raises(DataError, match=r"x\.npy: "):
        read_inputs(tmp_path / "x.npy")


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (numpy.zeros((0, 3, 16, 16), "f4"), "holds no inputs; give"),
        (numpy.array(3.0), "holds a single number; inputs have a first axis"),
    ],
)
def test_what_inputs_lack_is_said(tmp_path: Path, array: Any, said: str) -> None:
    numpy.save(tmp_path / "x.npy", array)
    with pytest.raises(DataError, match=said):
        read_inputs(tmp_path / "x.npy")


def test_a_misspelt_source_of_architectures_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match='no such Python file: torchvison; did you mean "torchvision"'):
        architectures.build("torchvison:resnet18")


def test_of_tensors_that_a_file_lacks_a_few_are_named(tmp_path: Path) -> None:
    network = torch.nn.Sequential(*(torch.nn.Linear(2, 2) for _ in range(40)))
    save_file({f"layers.{number}.w": torch.ones(2) for number in range(40)}, tmp_path / "x.safetensors")
    with pytest.raises(StoreError) as caught:
        parameter_files.with_parameters(network, tmp_path / "x.safetensors")
    said = str(caught.value).partition("architecture: ")[2]
    assert said.startswith('Missing key(s) in state_dict: "0.weight", "0.bias", "1.weight" and 77 more. Unexpected')
    assert len(said) < 200 and said.endswith("and 37 more.")


def test_a_checkpoint_whose_keys_are_no_text(tmp_path: Path) -> None:
    torch.save({1: torch.ones(2)}, tmp_path / "x.pt")
    with pytest.raises(StoreError, match="'1' is no name of a tensor"):
        parameter_files.read_parameters(tmp_path / "x.pt")


def test_a_complex_checkpoint_does_not_lose_its_imaginary_part(tmp_path: Path) -> None:
    network = nn.Linear(2, 2)
    state = {name: tensor.to(torch.complex64) for name, tensor in network.state_dict().items()}
    torch.save(state, tmp_path / "x.pt")
    with pytest.raises(StoreError, match="imaginary part would be lost"):
        parameter_files.with_parameters(network, tmp_path / "x.pt")


@pytest.mark.parametrize("change", [lambda t: t.to_sparse(), lambda t: t.to("meta")], ids=["sparse", "meta"])
def test_a_checkpoint_of_tensors_without_plain_values(tmp_path: Path, change: Callable[..., Any]) -> None:
    torch.save({"weight": change(torch.ones(2, 2)), "bias": torch.ones(2)}, tmp_path / "model.pt")
    with pytest.raises(StoreError, match=r"model\.pt: weight is .*; save dense"):
        parameter_files.with_parameters(nn.Linear(2, 2), tmp_path / "model.pt")


@pytest.mark.parametrize("old", [True, False])
def test_lists_in_lists_are_refused_before_they_are_built(tmp_path: Path, old: bool) -> None:
    path, deep = tmp_path / "x.pt", b"\x80\x02" + b"]" * 2_500_000 + b"a" * 2_499_999 + b"."
    path.write_bytes(deep)
    if not old:
        import zipfile

        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x/data.pkl", deep)
            archive.writestr("x/version", "3")
    started = time.monotonic()
    with pytest.raises(StoreError, match="nested too deeply"):
        torch_checkpoint.read(path)
    assert time.monotonic() - started < 2


def test_a_checkpoint_of_many_tensors_is_read(tmp_path: Path) -> None:
    state = {f"layers.{number}.weight": torch.ones(1) for number in range(3000)}
    for old in (True, False):
        torch.save(state, tmp_path / "x.pt", _use_new_zipfile_serialization=not old)
        assert len(parameter_files.read_parameters(tmp_path / "x.pt")) == 3000


def test_a_factory_file_may_have_dataclasses_and_options_with_colons(tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text(
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\n"
        "from torch import nn\n"
        "@dataclass\n"
        "class Sizes:\n"
        "    wide: int = 3\n"
        "def small(note=''):\n"
        "    made = nn.Linear(2, Sizes().wide)\n"
        "    made.note = note\n"
        "    return made\n"
    )
    assert architectures.build(f"{tmp_path / 'nets.py'}:small").out_features == 3
    assert architectures.build(f"{tmp_path / 'nets.py'}:small?note=a:b").note == "a:b"


@pytest.mark.parametrize("setting", ['run.dir="a\\u0000b"', 'run.cache="a\\u0000b"', 'zoo.report_from="a\\u0000b"'])
def test_a_zero_in_a_path_of_a_config(tiny_plugins: Plugins, support: Path, setting: str) -> None:
    with pytest.raises(ConfigError):
        config.load(support / "tiny.toml", tiny_plugins.registry(), [setting])


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        (f"target.hidden={10**30}", "target.hidden: a whole number of more than 64 bits"),
        (f"translator.width=-{2**63 + 1}", "translator.width: a whole number of more than 64 bits"),
        (f"training.seed={2**63}", "training.seed: a whole number of more than 64 bits"),
        ("translator.size=[]", "translator.size"),
        ("translator.size={}", "translator.size"),
    ],
)
def test_numbers_without_room_and_sizes_that_are_no_names(
    tiny_config: Callable[..., Any], setting: str, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        tiny_config(setting)


def test_a_device_without_numbers(tiny_config: Callable[..., Any], tiny_plugins: Plugins) -> None:
    with pytest.raises(ConfigError, match=r'run\.device: "meta" cannot be used'):
        run(tiny_config("run.device=meta"), loaded=tiny_plugins)


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")], ids=["pipe", "device"])
def test_a_config_is_a_file(tmp_path: Path, tiny_plugins: Plugins, make: Callable[[Path], object]) -> None:
    make(tmp_path / "x.toml")
    (tmp_path / "y.toml").write_text('extends = "x.toml"')
    for name in ("x.toml", "y.toml"):
        with pytest.raises(ConfigError, match=r"x\.toml: is no regular file"):
            config.load(tmp_path / name, tiny_plugins.registry())


def test_a_byte_order_mark_in_a_config_is_named(tmp_path: Path, tiny_plugins: Plugins) -> None:
    (tmp_path / "x.toml").write_bytes(b"\xef\xbb\xbf[task]\n")
    with pytest.raises(ConfigError, match="byte-order mark"):
        config.load(tmp_path / "x.toml", tiny_plugins.registry())


@pytest.mark.parametrize("name", ["x" * 300 + ".toml", "~nobody-of-that-name/x.toml", "\udcff.toml"])
def test_names_that_cannot_be_are_answered_in_words(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", name]) == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["compare", "run", "--html=~nobody-at-all/page.html"],
        ["inspect", "~nobody-at-all/model.pt", "--arch", "x"],
        ["zoo", "export", "x", "~nobody-at-all/zoo"],
        ["plugins", "--plugin", "~nobody-at-all/x.py"],
        ["plugins", "--plugin", "x" * 300],
        ["plugins", "--plugin", os.fsdecode(b"\xff.py")],
        ["plugins", "--plugin", "a\0b"],
        ["compare", "a\0b"],
        ["run", "a\0b"],
    ],
)
def test_every_path_of_the_command_line_is_one_that_can_be(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert "Traceback" not in capsys.readouterr().err and not Path("~nobody-at-all").exists()


def test_home_in_any_path_of_the_command_line_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh_plugins: Callable[[], Plugins]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "x.py").write_text("")
    assert main(["plugins", "--plugin=~/x.py"]) == 0


def test_home_in_the_path_of_a_run_is_found(
    tiny_config: Callable[..., Any], tiny_plugins: Plugins, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from paramtrans.runs.run import Run
    from paramtrans.utils.progress import Reporter

    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert Run(tiny_config(dir="~/x"), "run", Reporter(), tiny_plugins).folder.path == tmp_path / "home" / "x"


def test_a_narrow_terminal_shows_all_cells(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from rich.table import Table

    monkeypatch.setenv("COLUMNS", "12")
    monkeypatch.setenv("FORCE_COLOR", "1")
    table = Table(*(f"column {number}" for number in range(6)))
    table.add_row(*(f"value {number}" for number in range(6)))
    show.show(table)
    out = capsys.readouterr().out
    assert all(f"value {number}" in out for number in range(6))


def test_blocks_with_their_channels_last_do_not_stand_where_the_slot_has_them_first() -> None:
    adapter = components().create("block_adapter", "linear_chain", channels=4, hidden=[3])
    with pytest.raises(SpecMismatch, match="channels in the last axis"):
        check_fit("source block", adapter, FeatureSpec(4, 4, 4), FeatureSpec(4, 4, 4))


@pytest.mark.parametrize(
    "slot", [FeatureSpec(4), FeatureSpec(5, 4, channel_axis=1), FeatureSpec(2, 3, 4, channel_axis=2)]
)
def test_they_stand_where_the_slot_has_its_channels_last(slot: FeatureSpec) -> None:
    adapter = components().create("block_adapter", "linear_chain", channels=4, hidden=[3])
    check_fit("source block", adapter, slot, slot)
    with pytest.raises(SpecMismatch, match=rf"maps features \[2, {slot}\] to .*; \[2, 9\] have to leave"):
        check_fit("source block", adapter, slot, FeatureSpec(9))


def test_features_that_a_block_cannot_be_run_on_are_told_in_a_line() -> None:
    adapter = components().create("block_adapter", "conv", channels=4, hidden=3)
    with pytest.raises(SpecMismatch, match="source block cannot be run on features of 4:") as raised:
        check_fit("source block", adapter, FeatureSpec(4), FeatureSpec(4))
    assert "\n" not in str(raised.value)


PLUGIN = "from paramtrans import Component, hookimpl\n"
HOOK = "@hookimpl\ndef paramtrans_tasks():\n    return "
BROKEN = {
    "unmarked": ("def paramtrans_tasks():\n    return []\n", "put @hookimpl above each hook"),
    "a component alone": (f"{HOOK}Component('x', '', 'a:b')\n", r"put it into \[ \]"),
    "spaces": (f"{HOOK}[Component('a b', '', 'a:b')]\n", "'a b' is no name"),
    "no colon": (f"{HOOK}[Component('x', '', 'a.b')]\n", "write package.module:Class"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_plugin_that_announces_nothing_usable_is_told_how(
    tmp_path: Path, fresh_plugins: Callable[[], Plugins], what: str
) -> None:
    text, wanted = BROKEN[what]
    (tmp_path / "odd.py").write_text(PLUGIN + text)
    loaded = fresh_plugins()
    try:
        loaded.load_file(tmp_path / "odd.py")
    except PluginLoadError as error:
        said = str(error)
    else:
        said = "\n".join(loaded.registry().not_loaded)
    assert re.search(wanted, said), said


def test_what_stands_beside_a_plugin_file_can_be_imported(tmp_path: Path, fresh_plugins: Callable[[], Plugins]) -> None:
    (tmp_path / "beside_the_plugin.py").write_text("NAME = 'x'\n")
    (tmp_path / "main_plugin.py").write_text("import beside_the_plugin\n")
    fresh_plugins().load_file(tmp_path / "main_plugin.py")


def test_one_component_that_cannot_be_loaded_fails_one_check(
    tmp_path: Path, fresh_plugins: Callable[[], Plugins]
) -> None:
    (tmp_path / "half.py").write_text(
        "from paramtrans import Component, hookimpl\n"
        "from paramtrans.api.augmenter import Augmenter\n"
        "class Whole(Augmenter):\n"
        "    def __call__(self, params, generator):\n"
        "        return params\n"
        "@hookimpl\n"
        "def paramtrans_augmenters():\n"
        "    return [Component('whole', 'for tests', f'{__name__}:Whole')]\n"
        "@hookimpl\n"
        "def paramtrans_block_adapters():\n"
        "    return [Component(n, 'for tests', f'{__name__}:Gone') for n in ('gone', 'basic_block')]\n"
    )
    loaded = fresh_plugins()
    loaded.load_file(tmp_path / "half.py")
    registry = loaded.registry()
    assert [r.check for r in results(subjects("gone", registry)) if not r.passed] == ["right_kind"]
    clashing = [r for r in results(subjects("basic_block", registry, "block_adapter")) if not r.passed]
    assert {r.check for r in clashing} == {"right_kind"} and len(clashing) > 1
    failures = [r for r in results(subjects("whole", registry)) if not r.passed]
    assert not [r for r in failures if "gone" in r.message or "provided by" in r.message]


def test_an_augmenter_that_drops_a_tensor_is_named(
    tmp_path: Path, tiny_config: Callable[..., Any], tiny_plugins: Plugins
) -> None:
    (tmp_path / "dropping.py").write_text(
        "from paramtrans import Augmenter, Component, hookimpl\n"
        "class Dropping(Augmenter):\n"
        "    def __call__(self, params, generator):\n"
        "        return dict(list(params.items())[1:])\n"
        "@hookimpl\n"
        "def paramtrans_augmenters():\n"
        "    return [Component('dropping', 'for tests', f'{__name__}:Dropping')]\n"
    )
    tiny_plugins.load_file(tmp_path / "dropping.py")
    with pytest.raises(ParamtransError, match=r"augmenter Dropping: .*missing"):
        run(tiny_config("augmenters=['dropping']", "zoo.train=3", "zoo.report=2"), loaded=tiny_plugins)
