"""Saved translators: the same translations after loading, and nothing damaged or unknown is taken."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from paramtrans import PretrainedTranslator, load_translator, save_translator
from paramtrans.api.modules import initial
from paramtrans.config import ComponentConfig
from paramtrans.errors import NameConflict, OutOfMemory, ParamtransError, StoreError, UnknownName
from paramtrans.plugins import Plugins
from paramtrans.plugins.registry import Registry
from paramtrans.storage import json_files
from paramtrans.translators.saving import DESCRIPTION, FORMAT, WEIGHTS

SOURCE = ComponentConfig.model_validate({"name": "basic_block", "channels": 4})
TARGET = ComponentConfig.model_validate({"name": "conv", "channels": 4, "hidden": 2})
TRANSLATORS: dict[str, dict[str, Any]] = {
    "mixer": {"layers": 1, "width": 8, "token_width": 8, "channel_width": 8, "dropout": 0.5},
    "mlp": {"layers": 1, "width": 8, "dropout": 0.5},
    "attention": {"layers": 1, "width": 8, "heads": 2, "feedforward": 8, "dropout": 0.5},
    "conv": {"layers": 1, "width": 8, "kernel": 3, "dropout": 0.5},
}


@pytest.fixture(scope="module")
def registry() -> Registry:
    loaded = Plugins()
    loaded.load_entry_points()
    return loaded.registry()


def make(registry: Registry, name: str = "mlp", **options: Any):
    """A translator whose every weight and statistic differs from what a new one has."""
    source, target = (registry.create("block_adapter", part.name, **part.options) for part in (SOURCE, TARGET))
    with torch.random.fork_rng():
        torch.manual_seed(3)
        translator = registry.create("translator", name, source, target, **{**TRANSLATORS[name], **options})
        for tensor in translator.state_dict().values():
            tensor.add_(0.1 * torch.rand_like(tensor))
    return translator


@pytest.fixture
def saved(registry: Registry, tmp_path: Path) -> Path:
    save_translator(tmp_path / "translator", make(registry), "mlp", SOURCE, TARGET)
    return tmp_path / "translator"


def refused(folder: Path, named: str, registry: Registry | None = None) -> str:
    with pytest.raises(StoreError) as caught:
        load_translator(folder, registry)
    assert str(folder / named) in str(caught.value)
    return str(caught.value)


def edit(folder: Path, **changes: Any) -> None:
    description = json.loads((folder / DESCRIPTION).read_text())
    del description[json_files.SEAL]
    json_files.write_sealed(folder / DESCRIPTION, {**description, **changes})


@pytest.mark.parametrize("start", ["template", "none"])
@pytest.mark.parametrize("name", TRANSLATORS)
def test_a_loaded_translator_translates_identically(registry, tmp_path: Path, name: str, start: str) -> None:
    translator = make(registry, name, start=start)
    save_translator(tmp_path / "t", translator, name, SOURCE, TARGET)
    loaded = load_translator(str(tmp_path / "t"))
    blocks = initial(translator.source.module, [1, 2, 3])
    first, second = translator.translate(blocks), loaded.translate(blocks)
    assert list(first) == list(second) == list(translator.target.spec.names)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_loaded_translator_has_its_options_adapters_and_state(registry, saved: Path) -> None:
    translator, loaded = make(registry), load_translator(saved, registry)
    assert type(loaded) is type(translator)
    assert loaded.options == translator.options
    assert (loaded.source.options, loaded.target.options) == (translator.source.options, translator.target.options)
    assert not loaded.training
    assert all(torch.equal(t, loaded.state_dict()[n]) for n, t in translator.state_dict().items())


def test_saving_does_not_change_the_translator(registry, tmp_path: Path) -> None:
    translator = make(registry).train()
    before = {name: tensor.clone() for name, tensor in translator.state_dict().items()}
    save_translator(tmp_path, translator, "mlp", SOURCE, TARGET)
    assert translator.training
    assert all(torch.equal(before[name], tensor) for name, tensor in translator.state_dict().items())


def test_loading_does_not_disturb_the_random_numbers_of_the_caller(saved: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    load_translator(saved)
    assert torch.equal(torch.rand(3), expected)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", DESCRIPTION)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"3", b"{}", b"\xff", b'{"format": "1"}', b'{"format": null}'])
def test_a_damaged_description_is_named(saved: Path, content: bytes) -> None:
    (saved / DESCRIPTION).write_bytes(content)
    refused(saved, DESCRIPTION)


@pytest.mark.parametrize("key", ["translator", "source", "target"])
@pytest.mark.parametrize("value", [None, 3, {}, [], {"name": 3}], ids=repr)
def test_a_description_with_wrong_parts_is_named(saved: Path, key: str, value: Any) -> None:
    edit(saved, **{key: value})
    refused(saved, DESCRIPTION)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("translator", {"name": "mlp", "width": "wide"}),
        ("translator", {"name": "mlp", "layerz": 3}),
        ("source", {"name": "basic_block"}),
        ("target", {"name": "conv", "channels": 4, "hidden": -1}),
    ],
)
def test_options_the_component_refuses_are_an_error_that_names_the_file(saved: Path, key: str, value: Any) -> None:
    edit(saved, **{key: value})
    with pytest.raises(ParamtransError) as caught:
        load_translator(saved)
    assert str(saved / DESCRIPTION) in str(caught.value)


@pytest.mark.parametrize("version", [FORMAT + 1, 99])
def test_a_later_format_is_refused_with_both_versions(saved: Path, version: int) -> None:
    edit(saved, format=version)
    message = refused(saved, DESCRIPTION)
    assert f"format {version}" in message and f"reads {FORMAT}" in message and "update" in message


@pytest.mark.parametrize("version", [0, -1])
def test_a_format_that_never_was_is_refused(saved: Path, version: int) -> None:
    edit(saved, format=version)
    refused(saved, DESCRIPTION)


def test_a_description_that_was_edited_is_named_though_it_is_well_formed(saved: Path) -> None:
    path = saved / DESCRIPTION
    path.write_text(path.read_text().replace('"dropout": 0.5', '"dropout": 0.4'))
    assert "checksum" in refused(saved, DESCRIPTION)


def test_a_description_of_the_first_format_has_no_checksum_and_is_read(saved: Path) -> None:
    description = json.loads((saved / DESCRIPTION).read_text())
    del description[json_files.SEAL], description["weights_sha256"]
    json_files.write_json(saved / DESCRIPTION, {**description, "format": 1})
    load_translator(saved)


def test_whole_weights_of_another_translator_of_the_same_shape_are_named(registry, saved: Path, tmp_path) -> None:
    other = make(registry)
    next(other.parameters()).data.add_(1)
    save_translator(tmp_path / "other", other, "mlp", SOURCE, TARGET)
    for name in (WEIGHTS, f"{WEIGHTS}.json"):
        (saved / name).write_bytes((tmp_path / "other" / name).read_bytes())
    assert "belongs to another" in refused(saved, WEIGHTS)


@pytest.mark.parametrize("damage", ["truncate", "flip", "remove", "empty"])
def test_damaged_weights_are_named(saved: Path, damage: str) -> None:
    path = saved / WEIGHTS
    content = bytearray(path.read_bytes())
    if damage == "remove":
        path.unlink()
    else:
        content[-1] ^= 1
        path.write_bytes({"truncate": content[:-5], "flip": content, "empty": b""}[damage])
    refused(saved, WEIGHTS)


def test_missing_record_of_weights_is_named(saved: Path) -> None:
    (saved / f"{WEIGHTS}.json").unlink()
    refused(saved, f"{WEIGHTS}.json")


def test_weights_of_another_translator_are_refused(saved: Path) -> None:
    edit(saved, translator={"name": "mlp", "layers": 3, "width": 8})
    assert "does not fit" in refused(saved, WEIGHTS)


def test_a_translator_of_a_plugin_that_is_not_there_is_an_unknown_name(saved: Path) -> None:
    edit(saved, translator={"name": "mixr"})
    with pytest.raises(UnknownName, match="mixer"):
        load_translator(saved)


def test_a_description_cannot_name_code(saved: Path) -> None:
    edit(saved, translator={"name": "os:system"})
    with pytest.raises((UnknownName, NameConflict)):
        load_translator(saved)


def test_weights_larger_than_the_description_says_are_not_read(saved: Path) -> None:
    with (saved / WEIGHTS).open("r+b") as file:
        file.truncate(2**40)  # takes no room on the disk
    json_files.write_sealed(saved / f"{WEIGHTS}.json", {"format": FORMAT, "bytes": 2**40, "sha256": "0" * 64})
    assert "no such file has more" in refused(saved, WEIGHTS)


@pytest.mark.parametrize("key", ["source", "target"])
def test_a_description_of_absurd_sizes_is_refused(saved: Path, key: str) -> None:
    edit(saved, **{key: {"name": "conv", "channels": 4, "hidden": 10**18}})
    with pytest.raises(OutOfMemory, match="asks for sizes"):
        load_translator(saved)


MLP = ComponentConfig.model_validate({"name": "mlp", "channels": 4, "hidden": 3})


def several(registry: Registry, folder: Path) -> Any:
    """A translator of two families, saved."""
    source, target, other = (registry.create("block_adapter", p.name, **p.options) for p in (SOURCE, TARGET, MLP))
    translator = registry.create("translator", "equivariant", source, target, layers=1, width=8)
    translator.add_family(other)
    save_translator(folder, translator, "equivariant", SOURCE, TARGET, [MLP])
    return translator


def test_a_translator_of_two_families_names_both(registry: Registry, tmp_path: Path) -> None:
    original, source = several(registry, tmp_path), registry.create("block_adapter", SOURCE.name, **SOURCE.options)
    assert json.loads((tmp_path / DESCRIPTION).read_text())["further"] == [MLP.model_dump(mode="json")]
    loaded, blocks = load_translator(tmp_path, registry), initial(source.module, range(3))
    PretrainedTranslator(original).save_pretrained(tmp_path / "again")
    again = PretrainedTranslator.from_pretrained(tmp_path / "again").translator
    for target in original.families:
        wanted = original.resized(source, target).translate(blocks)
        for translator in (loaded, again):
            written = translator.resized(source, target).translate(blocks)
            assert written.keys() == wanted.keys() and all(torch.equal(written[name], t) for name, t in wanted.items())


@pytest.mark.parametrize(
    ("further", "message"),
    [
        ([], "does not fit"),
        (3, "valid"),
        ([3], "valid"),
        ([{"name": "mlp", "channels": 4}] * 101, "at most 100"),
        ([{"name": "mlp", "channels": 4}], "hidden"),
        ([{"name": "heads", "channels": 4, "heads": 2, "width": 2}], "cannot be read"),
    ],
    ids=str,
)
def test_further_families_that_are_not_those_of_the_weights_are_refused(
    registry: Registry, tmp_path: Path, further: Any, message: str
) -> None:
    several(registry, tmp_path)
    edit(tmp_path, further=further)
    assert message in refused(tmp_path, WEIGHTS if message == "does not fit" else DESCRIPTION)


def test_a_translator_of_one_family_alone_takes_no_other(saved: Path) -> None:
    edit(saved, further=[MLP.model_dump(mode="json")])
    assert "writes blocks of one family" in refused(saved, DESCRIPTION)
