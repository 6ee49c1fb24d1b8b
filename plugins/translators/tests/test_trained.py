"""A translator from another run's folder, at its own size and at others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from paramtrans import components, save_translator
from paramtrans.api.modules import initial
from paramtrans.config import ComponentConfig
from paramtrans.errors import ConfigError, SpecMismatch


def block(name: str, **options: Any) -> Any:
    return components().create("block_adapter", name, channels=4, **options)


SOURCE = block("basic_block")
BLOCKS = initial(SOURCE.module, range(3))


def saved(folder: Path, name: str, **options: Any) -> Any:
    translator = components().create("translator", name, SOURCE, block("conv", hidden=2), width=8, layers=1, **options)
    source = ComponentConfig.model_validate({"name": "basic_block", "channels": 4})
    target = ComponentConfig.model_validate({"name": "conv", "channels": 4, "hidden": 2})
    save_translator(folder / "translator", translator, name, source, target)
    return translator


def trained(folder: Path, target: Any, source: Any = SOURCE) -> Any:
    return components().create("translator", "trained", source, target, folder=str(folder))


@pytest.mark.parametrize("name", ["mixer", "equivariant"])
def test_it_translates_as_the_one_that_was_saved(name: str, tmp_path: Path) -> None:
    original = saved(tmp_path, name)
    expected = original.translate(BLOCKS)
    for folder in (tmp_path, tmp_path / "translator"):  # of the run, or of the translator
        written = trained(folder, block("conv", hidden=2)).translate(BLOCKS)
        assert all(torch.equal(written[key], expected[key]) for key in expected)


def test_at_another_width_it_has_the_same_weights(tmp_path: Path) -> None:
    original, source, target = saved(tmp_path, "equivariant"), block("basic_block", hidden=6), block("conv", hidden=5)
    resized = trained(tmp_path, target, source)
    assert all(torch.equal(t, original.state_dict()[key]) for key, t in resized.translator.state_dict().items())
    written = resized.translate(initial(source.module, range(3)))
    assert [tuple(t.shape) for t in written.values()] == [(3, *t.shape) for t in target.spec.tensors]


def test_what_it_cannot_be_is_told(tmp_path: Path) -> None:
    saved(tmp_path / "mixer", "mixer")
    saved(tmp_path / "equivariant", "equivariant")
    with pytest.raises(SpecMismatch, match="Mixer translates blocks of one size"):
        trained(tmp_path / "mixer", block("conv", hidden=3))
    with pytest.raises(SpecMismatch, match="another family"):
        trained(tmp_path / "equivariant", block("mlp", hidden=3))
    with pytest.raises(ConfigError, match="folder: "):
        trained(tmp_path / "nowhere", block("conv", hidden=3))
