"""Real MNIST: what is shipped, the user's own copy, and data sets that need a network."""

from __future__ import annotations

import gzip
import hashlib
import shutil
import time
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
from paramtrans_mnist import shipped

from paramtrans.api.task import Task
from paramtrans.errors import ConfigError, DataError
from paramtrans.plugins import Plugins

NAMES = tuple(shipped.MD5)


def task(name: str = "mnist", **options: Any) -> Task:
    loaded = Plugins()
    loaded.load_entry_points()
    created: Task = loaded.registry().create("task", name, **options)
    return created


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Task]:
    """The shipped data in a cache, and the task that unpacked it."""
    cache, mnist = tmp_path_factory.mktemp("cache"), task()
    mnist.prepare(cache)
    return cache, mnist


@pytest.fixture
def mine(prepared: tuple[Path, Task], tmp_path: Path) -> Path:
    """A user's own copy; hard links would let a careless writer change the cache."""
    shutil.copytree(prepared[0] / "data", tmp_path / "mine")
    return tmp_path / "mine"


def state(root: Path) -> dict[str, tuple[int, str]]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {str(f.relative_to(root)): (f.stat().st_mtime_ns, hashlib.md5(f.read_bytes()).hexdigest()) for f in files}


def test_the_whole_of_mnist_is_shipped(prepared: tuple[Path, Task]) -> None:
    _, mnist = prepared
    splits = {name: mnist.split(name) for name in ("train", "holdout", "test")}
    assert {name: len(split) for name, split in splits.items()} == {"train": 55_000, "holdout": 5_000, "test": 10_000}
    for split in splits.values():
        assert split.inputs.shape == (len(split), 28, 28) and split.inputs.dtype is torch.uint8
        assert set(split.labels.tolist()) == set(range(10))


def test_the_images_are_the_known_ones(prepared: tuple[Path, Task]) -> None:
    """Mean and deviation as everybody quotes them, the known counts of digits, the known first labels."""
    _, mnist = prepared
    train, holdout, test = (mnist.split(name) for name in ("train", "holdout", "test"))
    pixels = torch.cat([train.inputs, holdout.inputs]).double() / 255
    assert round(pixels.mean().item(), 4) == 0.1307 and round(pixels.std().item(), 4) == 0.3081
    counts = torch.bincount(torch.cat([train.labels, holdout.labels])).tolist()
    assert counts == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert torch.bincount(test.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert train.labels[:5].tolist() == [5, 0, 4, 1, 9] and test.labels[:5].tolist() == [7, 2, 1, 0, 4]


def test_held_out_images_are_in_no_other_split(prepared: tuple[Path, Task]) -> None:
    _, mnist = prepared
    seen = {name: {row.tobytes() for row in mnist.split(name).inputs.numpy()} for name in ("train", "holdout", "test")}
    assert not seen["holdout"] & seen["train"]
    assert not seen["holdout"] & seen["test"]


def test_the_hold_out_can_be_of_any_size_but_everything(prepared: tuple[Path, Task]) -> None:
    cache, _ = prepared
    small = task(holdout=100)
    small.prepare(cache)
    assert (len(small.split("train")), len(small.split("holdout")), len(small.split("test"))) == (59_900, 100, 10_000)
    with pytest.raises(DataError, match=r"task\.holdout: 60000"):
        task(holdout=60_000).prepare(cache)


def test_the_cache_is_unpacked_once_and_leaves_no_temporary_files(prepared: tuple[Path, Task]) -> None:
    cache, _ = prepared
    before = state(cache)
    assert sorted(before) == sorted(f"data/MNIST/raw/{name}" for name in NAMES)
    task().prepare(cache)
    assert state(cache) == before


@pytest.mark.parametrize("damage", ["missing", "cut off", "flipped"])
def test_a_damaged_cache_is_repaired(mine: Path, tmp_path: Path, damage: str) -> None:
    cache = tmp_path / "cache"
    shutil.copytree(mine, cache / "data")
    before = {name: md5 for name, (_, md5) in state(cache).items()}
    harm(cache / "data" / "MNIST" / "raw" / NAMES[3], damage)
    task().prepare(cache)
    assert {name: md5 for name, (_, md5) in state(cache).items()} == before


def harm(path: Path, damage: str) -> None:
    content = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
    elif damage == "cut off":
        path.write_bytes(content[:-1])
    else:
        content[len(content) // 2] ^= 1
        path.write_bytes(content)


def test_the_slot_has_the_papers_shape_and_the_network_takes_the_images(prepared: tuple[Path, Task]) -> None:
    _, mnist = prepared
    inputs = mnist.to_input(mnist.split("test").inputs[:3])
    assert inputs.shape == (3, 1, 28, 28) and inputs.min() >= 0 and inputs.max() == 1
    features = mnist.former().eval()(inputs)
    assert features.shape == (3, *mnist.slot.shape) == (3, 6, 14, 14)
    assert mnist.latter().eval()(features).shape == (3, 10)


def test_flipping_mirrors_about_half_of_the_images_by_the_hosts_own_seed(prepared: tuple[Path, Task]) -> None:
    cache, plain = prepared
    flipping = task(flip=True)
    flipping.prepare(cache)
    raw = plain.split("train").inputs[:400]
    first, again, other = (flipping.augment(raw, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    mirrored = (first == raw.flip(-1)).flatten(1).all(1)
    assert ((first == raw).flatten(1).all(1) | mirrored).all()
    assert 150 < mirrored.sum() < 250
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(raw, plain.split("train").inputs[:400])
    assert torch.equal(plain.augment(raw, torch.Generator()), raw)


def test_batches_are_augmented_by_each_hosts_seed_whatever_hosts_stand_beside_it(prepared: tuple[Path, Task]) -> None:
    from paramtrans.zoo.host_training import batches_of

    cache, _ = prepared
    flipping = task(flip=True)
    flipping.prepare(cache)
    split = flipping.split("holdout")
    both, _ = next(batches_of(flipping, split, [3, 4], 16))
    alone, _ = next(batches_of(flipping, split, [4], 16))
    assert torch.equal(both[1], alone[0]) and not torch.equal(both[0], both[1])


def test_an_epoch_drawn_in_one_go_is_what_its_batches_drew_one_by_one(prepared: tuple[Path, Task]) -> None:
    from paramtrans.zoo.host_training import batches_of

    class DrawsItself(type(task())):  # type: ignore[misc]
        """As a third party's task that overrides `augment` alone."""

        def augment(self, raw: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
            flipped: torch.Tensor = self.augmented(raw, self.draws(len(raw), generator))
            return flipped

    cache, _ = prepared
    at_once = task(flip=True, holdout=59_900)
    one_by_one = DrawsItself(at_once.options)
    for variant in (at_once, one_by_one):
        variant.prepare(cache)
    batches, wanted = (batches_of(variant, variant.split("train"), [3, 4, 5], 16) for variant in (at_once, one_by_one))
    for _ in range(15):  # two epochs of 100 images, with the short last batches
        for batch, wanted_batch in zip(next(batches), next(wanted), strict=True):
            assert torch.equal(batch, wanted_batch)


# The small digits


def test_the_small_digits_are_shipped_whole_and_enlarged(tmp_path: Path) -> None:
    digits = task("digits")
    digits.prepare(tmp_path)
    splits = {name: digits.split(name) for name in ("train", "holdout", "test")}
    assert {name: len(split) for name, split in splits.items()} == {"train": 1100, "holdout": 197, "test": 500}
    labels = torch.cat([split.labels for split in splits.values()])
    assert torch.bincount(labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert labels[:10].tolist() == list(range(10))
    raw, _ = shipped.digits()
    assert raw.max() == 16 and splits["train"].inputs.shape == (1100, 28, 28)
    brightness = splits["train"].inputs.double().mean((1, 2)) / 255
    assert (brightness - raw[:1100].double().mean((1, 2)) / 16).abs().max() < 0.02
    assert digits.slot == task().slot and not list(tmp_path.iterdir())


def test_a_damaged_or_another_copy_of_the_digits_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="shipped; leave it out"):
        task("digits", root="mine")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / shipped.DIGITS).write_bytes(gzip.compress(b"1,2,3"))
    monkeypatch.setattr(shipped, "files", lambda name: tmp_path)
    with pytest.raises(DataError, match=r"digits\.csv\.gz is damaged; install again"):
        task("digits").prepare(tmp_path)


# The user's own copy


def test_the_users_copy_is_used_and_never_written_to(mine: Path, tmp_path: Path) -> None:
    before = state(mine)
    copied = task(root=str(mine))
    copied.prepare(tmp_path / "cache")
    assert len(copied.split("train")) == 55_000
    assert state(mine) == before
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("damage", ["missing", "cut off", "flipped"])
def test_damage_in_the_users_copy_is_an_error_that_names_the_file(mine: Path, tmp_path, name: str, damage: str) -> None:
    path = mine / "MNIST" / "raw" / name
    harm(path, damage)
    before = state(mine)
    with pytest.raises(DataError) as caught:
        task(root=str(mine)).prepare(tmp_path / "cache")
    message = str(caught.value)
    assert str(path) in message and "task.root" in message and "\n" not in message
    assert ("missing" if damage == "missing" else "damaged") in message
    assert state(mine) == before


def test_a_folder_without_data_is_an_error_that_says_how_it_must_look(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="MNIST/raw/train-images-idx3-ubyte"):
        task(root=str(tmp_path / "nothing")).prepare(tmp_path / "cache")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_the_place_of_a_file_is_an_error_of_the_data(mine: Path, tmp_path: Path) -> None:
    path = mine / "MNIST" / "raw" / NAMES[0]
    path.unlink()
    path.mkdir()
    with pytest.raises(DataError, match=str(path)):
        task(root=str(mine)).prepare(tmp_path / "cache")


def test_a_damaged_installation_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shipped archive is checked as well, so that what is unpacked from a damaged one is not used."""
    package = tmp_path / "package"
    shutil.copytree(Path(shipped.__file__).parent / "data", package / "data")
    archive = package / "data" / f"{NAMES[3]}.gz"
    archive.write_bytes(gzip.compress(bytes(10_008)))
    monkeypatch.setattr(shipped, "files", lambda name: package)
    with pytest.raises(DataError) as caught:
        task().prepare(tmp_path / "cache")
    assert NAMES[3] in str(caught.value) and "install" in str(caught.value)


# Data sets that are downloaded


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Torchvision without a network; returns the addresses asked for."""
    asked: list[str] = []

    def refuse(url: str, *args: Any, **options: Any) -> None:
        asked.append(url)
        raise URLError("Temporary failure in name resolution")

    for module in ("mnist.download_and_extract_archive", "usps.download_url"):
        monkeypatch.setattr(f"torchvision.datasets.{module}", refuse)
    return asked


@pytest.mark.parametrize(("name", "label"), [("fashion_mnist", "FashionMNIST"), ("usps", "USPS")])
def test_without_a_network_it_is_told_quickly_what_to_do(offline, tmp_path: Path, name: str, label: str) -> None:
    started = time.monotonic()
    with pytest.raises(DataError) as caught:
        task(name).prepare(tmp_path / "cache")
    message = str(caught.value)
    assert offline and time.monotonic() - started < 5
    assert message.startswith(f"{label}: ") and str(tmp_path / "cache" / "data") in message
    assert "cannot be downloaded" in message and "task.root" in message and "\n" not in message


@pytest.mark.parametrize("name", ["fashion_mnist", "usps"])
def test_the_users_own_folder_is_never_downloaded_into(offline: list[str], tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=r"task\.root"):
        task(name, root=str(tmp_path / "mine")).prepare(tmp_path / "cache")
    assert offline == [] and list(tmp_path.iterdir()) == []


def test_usps_images_are_enlarged() -> None:
    from paramtrans_mnist import tasks

    class Small:
        data = torch.arange(256, dtype=torch.uint8).view(1, 16, 16)
        targets = (3,)

    enlarged = tasks._grey(Small())
    assert (
        enlarged.inputs.shape == (1, 28, 28)
        and enlarged.inputs.dtype is torch.uint8
        and enlarged.labels.tolist() == [3]
    )
    assert abs(enlarged.inputs.double().mean() - Small.data.double().mean()) < 2
