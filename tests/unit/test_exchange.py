"""Zoos on their way: whether a file's tensors are those of its recipe."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from paramtrans.errors import Damaged
from paramtrans.storage import sealed_params
from paramtrans.zoo.exchange import Contents, File

TARGET = "0" * 16
RECIPE = {"tensors": [["former.w", [2]], ["block.block.w", [3]]]}
TARGETS = {TARGET: {"tensors": [["block.w", [3]]]}}


def zoo(folder: Path, place: str, names: dict[str, int]) -> tuple[Contents, File]:
    """A zoo of one file with tensors of some sizes."""
    path = folder / place / "train-0000000-0000002.safetensors"
    sealed_params.save_params(path, {name: torch.zeros(2, size) for name, size in names.items()}, {})
    file = File(path.relative_to(folder).as_posix(), sealed_params.load_record(path))
    return Contents(folder, RECIPE, TARGETS, (file,)), file


@pytest.mark.parametrize(
    ("place", "names"),
    [("hosts", {"former.w": 2, "source.block.w": 3}), (f"targets/{TARGET}", {"target.block.w": 3})],
)
def test_a_block_may_hold_a_module_named_block(tmp_path: Path, place: str, names: dict[str, int]) -> None:
    contents, file = zoo(tmp_path, place, names)
    assert contents.load(file).keys() == names.keys()


@pytest.mark.parametrize(
    ("place", "names"),
    [
        ("hosts", {"former.w": 2, "block.block.w": 3}),
        ("hosts", {"former.w": 2, "source.block.w": 4}),
        (f"targets/{TARGET}", {"block.w": 3}),
        (f"targets/{TARGET}", {"target.source.w": 3}),
    ],
)
def test_tensors_of_other_names_or_sizes_are_refused(tmp_path: Path, place: str, names: dict[str, int]) -> None:
    contents, file = zoo(tmp_path, place, names)
    with pytest.raises(Damaged, match="its tensors are not those of the recipe"):
        contents.load(file)
