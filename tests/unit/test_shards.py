"""Models read from many files at once, in any order, without reading a file whole."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from paramtrans.api.stacking import Params, concatenate, take
from paramtrans.errors import Damaged, StoreError
from paramtrans.storage import sealed_params
from paramtrans.storage.shards import Shards

COUNTS = (3, 1, 4)


@pytest.fixture
def written(tmp_path: Path) -> tuple[list[Path], Params]:
    stacks = [{"a.w": torch.randn(n, 2, 3), "b.scale": torch.randn(n), "a.v": torch.randn(n, 5)} for n in COUNTS]
    paths = [tmp_path / f"{number}.safetensors" for number in range(len(COUNTS))]
    for path, stack in zip(paths, stacks, strict=True):
        sealed_params.save_params(path, stack, {})
    return paths, concatenate(stacks)


def same(first: Params, second: Params) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("index", [[0], [7, 0, 3, 3, 2], [5, 4], list(range(8)), []])
def test_models_are_taken_in_the_order_asked_for(written: tuple[list[Path], Params], index: list[int]) -> None:
    paths, everything = written
    shards = Shards(paths)
    assert len(shards) == 8
    assert same(shards.take(index), take(everything, index))
    assert same(shards.take(torch.tensor(index, dtype=torch.long)), take(everything, index))


def test_only_what_is_asked_for_is_read(written: tuple[list[Path], Params]) -> None:
    paths, everything = written
    taken = Shards(paths, ("a.",)).take([6, 1])
    assert same(taken, {name: tensor[[6, 1]] for name, tensor in everything.items() if name.startswith("a.")})


def test_one_pass_gives_everything_in_order_in_pieces(written: tuple[list[Path], Params]) -> None:
    paths, everything = written
    pieces = list(Shards(paths).one_pass(3))
    assert [len(piece["a.w"]) for piece in pieces] == [3, 3, 2]
    assert same(concatenate(pieces), everything)


def test_what_is_taken_is_a_copy(written: tuple[list[Path], Params]) -> None:
    paths, everything = written
    shards = Shards(paths)
    shards.take([0])["a.w"].zero_()
    assert same(shards.take([0]), take(everything, [0]))


@pytest.mark.parametrize("index", [[8], [-1]])
def test_a_model_that_is_not_there_is_an_error(written: tuple[list[Path], Params], index: list[int]) -> None:
    with pytest.raises(IndexError, match="of 8"):
        Shards(written[0]).take(index)


def test_a_changed_file_is_found_by_the_check(written: tuple[list[Path], Params]) -> None:
    path = written[0][1]
    shards = Shards(written[0])
    shards.check()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(Damaged, match=path.name):
        shards.check()


@pytest.mark.parametrize("content", [b"", b"\xff" * 64, b"{}", (1 << 40).to_bytes(8, "little") + b"{}"])
def test_a_file_of_another_kind_is_refused(written: tuple[list[Path], Params], content: bytes) -> None:
    path = written[0][2]
    path.write_bytes(content)
    with pytest.raises(StoreError, match=path.name):
        Shards(written[0])


def test_a_file_that_was_cut_off_is_refused(written: tuple[list[Path], Params]) -> None:
    path = written[0][2]
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(Damaged, match=path.name):
        Shards(written[0])


def test_values_of_another_type_are_refused(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(2, 3, dtype=torch.int64)}, tmp_path / "whole.safetensors")
    with pytest.raises(Damaged, match="float32"):
        Shards([tmp_path / "whole.safetensors"])


def test_files_with_other_tensors_than_the_first_are_refused(written: tuple[list[Path], Params]) -> None:
    path = written[0][1]
    sealed_params.save_params(path, {"other": torch.zeros(1, 2)}, {})
    with pytest.raises(StoreError, match="other tensors"):
        Shards(written[0]).take([3])
