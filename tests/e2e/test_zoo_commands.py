"""Zoos that leave and enter: what comes back is the same, and what was touched or does not fit is refused."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save

from paramtrans.cli.main import main
from paramtrans.storage import json_files, sealed_params
from paramtrans.storage.files import checksum
from paramtrans.zoo import exchange
from paramtrans.zoo.recipe import hosts_digest

SUPPORT = Path(__file__).parents[1] / "support"
TINY = (str(SUPPORT / "tiny.toml"), "--plugin", str(SUPPORT / "tiny_task.py"))
GOLDEN = next((Path(__file__).parents[1] / "golden" / "zoos").iterdir())
ORIGIN = ("--set", "zoo.origin=paper")
PARTS = {"former": "backup_begin", "source": "inputs", "latter": "backup_last", "target": "labels"}


@pytest.fixture
def do(capfd, fresh_plugins) -> Callable[..., tuple[int, str, str]]:
    """Runs a command in this process: its status, standard output and standard error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        fresh_plugins()
        capfd.readouterr()
        status = main([str(argument) for argument in arguments])
        shown = capfd.readouterr()
        return status, shown.out, shown.err

    return run


@pytest.fixture
def exported(do, tmp_path: Path) -> Path:
    assert do("zoo", "export", GOLDEN, tmp_path / "zoo", "--quiet") == (0, f"5 files in {tmp_path / 'zoo'}\n", "")
    return tmp_path / "zoo"


def files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.safetensors")}


def refused(do, cache: Path, *arguments: object) -> str:
    """The one line with which a command is refused; nothing is left in the cache."""
    status, out, err = do("zoo", "import", *arguments, "--cache", cache, "--quiet")
    assert (status, out) == (2, "") and "Traceback" not in err and err.count("\n") == 1
    assert not list(cache.rglob("*.safetensors"))
    return err


def test_inspect_says_what_is_there(do) -> None:
    status, out, _ = do("zoo", "inspect", GOLDEN, "--json", "--verify")
    summary = json.loads(out)
    assert status == 0 and summary["hosts"] == {"report": 2, "select": 1, "train": 3}
    assert [(t["target"]["name"], t["hosts"]) for t in summary["targets"]] == [("conv", 5)]
    assert summary["tensors"]["former.0.weight"] == [4, 1, 3, 3] and summary["files"] == 5
    assert "basic_block" in do("zoo", "inspect", GOLDEN)[1]


def test_settings_say_which_zoo_of_a_config_is_meant(do, tmp_path: Path) -> None:
    where = (*TINY, "--cache", tmp_path)
    errors = [do("zoo", "inspect", *where, *settings)[2] for settings in ((), ("--set", "zoo.seed=5"))]
    assert all("no zoo" in error for error in errors) and errors[0] != errors[1]  # another folder
    status, _, err = do("zoo", "inspect", GOLDEN, "--set", "zoo.seed=5")
    assert status == 2 and "--set zoo.seed=5: goes with a config" in err
    assert do("zoo", "inspect", "--set", "zoo.seed=5")[0] == 2


def test_a_zoo_leaves_as_plain_safetensors_with_an_index(exported: Path) -> None:
    from safetensors.torch import load_file

    index = json.loads((exported / "index.json").read_text())
    assert {item["path"] for item in index["files"]} == set(files(exported)) == set(files(GOLDEN))
    for item in index["files"]:
        tensors = load_file(exported / item["path"])
        assert {name: list(tensor.shape) for name, tensor in tensors.items()} == item["tensors"]
        assert item["record"]["sha256"] == checksum(exported / item["path"])


def test_a_zoo_comes_back_the_same_and_may_come_twice(do, exported: Path, tmp_path: Path) -> None:
    for _ in range(2):
        status, out, _ = do("zoo", "import", exported, "--cache", tmp_path / "cache", "--json")
        assert status == 0
    folder = Path(json.loads(out)["folder"])
    assert folder.name == GOLDEN.name and files(folder) == files(GOLDEN)
    assert do("zoo", "inspect", GOLDEN.name[:5], "--cache", tmp_path / "cache", "--verify")[0] == 0
    assert json.loads(do("zoo", "inspect", "--cache", tmp_path / "cache", "--json")[1])[0]["files"] == 5


def test_a_run_goes_on_from_an_imported_zoo_without_training_hosts(do, tmp_path: Path) -> None:
    folder = f"run.dir={tmp_path / 'run'}"
    where = ("--set", f"run.cache={tmp_path / 'one'}", "--set", folder, "--json")
    first = json.loads(do("run", *TINY, *where)[1])
    assert do("zoo", "export", TINY[0], tmp_path / "zoo", *TINY[1:], "--cache", tmp_path / "one")[0] == 0
    assert do("zoo", "import", tmp_path / "zoo", "--cache", tmp_path / "two")[0] == 0
    shutil.rmtree(tmp_path / "run")
    status, out, err = do("run", *TINY, "--set", f"run.cache={tmp_path / 'two'}", "--set", folder, "--json")
    assert status == 0 and "step 1" not in err and "step 3" in err
    assert means(json.loads(out)) == means(first)


def test_snapshots_are_shown_leave_and_come_back_with_their_hosts(do, tmp_path: Path) -> None:
    where = ("--set", "zoo.snapshots=[0.5]", "--set", f"run.dir={tmp_path / 'run'}", "--json")
    first = json.loads(do("run", *TINY, *where, "--set", f"run.cache={tmp_path / 'one'}")[1])
    assert first["zoo"] == {"train": 6, "select": 2, "report": 3, "snapshots": 6}
    [zoo] = (tmp_path / "one" / "zoos").iterdir()
    assert "6 train, 6 train@0.5" in do("zoo", "inspect", zoo, "--verify")[1]
    assert do("zoo", "export", zoo, tmp_path / "zoo")[0] == 0
    assert do("zoo", "import", tmp_path / "zoo", "--cache", tmp_path / "two")[0] == 0
    shutil.rmtree(tmp_path / "run")
    _, out, err = do("run", *TINY, *where, "--set", f"run.cache={tmp_path / 'two'}")
    assert "step 1" not in err and means(json.loads(out)) == means(first)


def means(result: dict[str, Any]) -> dict[str, float]:
    return {name: method["mean"] for name, method in result["methods"].items()}


def edit(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change an index, with a checksum that fits."""
    index = json.loads((folder / "index.json").read_text())
    index.pop(json_files.SEAL)
    change(index)
    json_files.write_sealed(folder / "index.json", index)


def put(at: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """Puts a value at a dotted place."""

    def change(document: Any) -> None:
        *path, last = [int(key) if key.isdigit() else key for key in at.split(".")]
        for key in path:
            document = document[key]
        document[last] = value

    return change


INDEXES: dict[str, Callable[[dict[str, Any]], None]] = {
    "a path that leads out": put("files.0.path", "../../hosts/train-0000000-0000003.safetensors"),
    "an absolute path": put("files.0.path", "/etc/passwd"),
    "a later format": put("format", 99),
    "no recipe": put("recipe", None),
    "a recipe without tensors": put("recipe.tensors", []),
    "a recipe of other shapes": put("recipe.tensors.0.1", [4, 1, 5, 5]),
    "a shape of words": put("recipe.tensors.0.1", ["4"]),
    "files that are none": put("files", [3]),
    "a role of its own": put("files.0.record.role", "train/../../x"),
    "a record of another shard": put("files.0.record.start", 7),
    "negative seeds": put("files.0.record.seeds", [-1, -2]),
    "no seconds": put("files.0.record.seconds", "NaN"),
    "targets of other hosts": put("files.4.record.hosts_sha256", "0" * 64),
}


@pytest.mark.parametrize("change", INDEXES.values(), ids=INDEXES.keys())
def test_an_index_that_does_not_fit_is_refused(do, exported: Path, tmp_path: Path, change) -> None:
    edit(exported, change)
    assert str(exported) in refused(do, tmp_path / "cache", exported)


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "link", "index", "pickle"])
def test_a_damaged_zoo_is_refused(do, exported: Path, tmp_path: Path, damage: str) -> None:
    path = exported / sorted(files(exported))[0]
    content = bytearray(path.read_bytes())
    if damage == "index":
        path = exported / "index.json"
        path.write_text(path.read_text().replace("tiny", "tine", 1))
    elif damage in ("remove", "link"):
        path.rename(tmp_path / "elsewhere")
        if damage == "link":
            path.symlink_to(tmp_path / "elsewhere")
    else:
        content[-1] ^= 1
        path.write_bytes({"flip": content, "truncate": content[:-4], "pickle": pickle.dumps([1])}[damage])
    assert path.name in refused(do, tmp_path / "cache", exported)


def test_another_zoo_in_the_same_place_is_not_overwritten(do, exported: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    assert do("zoo", "import", exported, "--cache", cache)[0] == 0
    file = next(f for f in exchange.contents(exported).files if f.target is None)
    there = cache / "zoos" / GOLDEN.name / file.path
    params, record = sealed_params.load_params(there)
    changed = {name: tensor + 1 for name, tensor in params.items()}
    sealed_params.save_params(there, changed, {k: v for k, v in record.items() if k not in ("bytes", "sha256")})
    before = there.read_bytes()
    status, _, err = do("zoo", "import", exported, "--cache", cache, "--quiet")
    assert status == 2 and "differs" in err and there.read_bytes() == before


def test_export_needs_a_folder_of_its_own(do, tmp_path: Path) -> None:
    (tmp_path / "zoo").mkdir()
    (tmp_path / "zoo" / "mine.txt").touch()
    status, _, err = do("zoo", "export", GOLDEN, tmp_path / "zoo", "--quiet")
    assert status == 2 and "not empty" in err and [p.name for p in (tmp_path / "zoo").iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("name", ["nothing", "", "."])
def test_what_is_no_zoo_is_answered_in_a_line(do, tmp_path: Path, monkeypatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    status, _, err = do("zoo", "inspect", name or "x/y", "--cache", tmp_path)
    assert status == 2 and "zoo" in err and err.count("\n") == 1


# The paper's layout


def published(folder: Path, rename: Callable[[str, str], str] = lambda part, name: f"net.{name}") -> Path:
    """The golden zoo, a `.pth` for each part of each model, under other names; in the order train, report."""
    zoo = exchange.contents(GOLDEN)
    number = 0
    for role in ("train", "report"):
        shard, targets = (
            zoo.load(next(f for f in zoo.files if f.record["role"] == role and bool(f.target) is with_target))
            for with_target in (False, True)
        )
        for model in range(len(next(iter(shard.values())))):
            for part, name in PARTS.items():
                (folder / name).mkdir(parents=True, exist_ok=True)
                stems = [s[0] for s in order(zoo, part)]
                stack = {**shard, **targets}
                state = {rename(part, tensor): stack[f"{part}.{tensor}"][model].clone() for tensor in stems}
                if part != "target":
                    state["net.bn.num_batches_tracked"] = torch.tensor(3)
                torch.save(state, folder / name / f"{number}.pth")
            number += 1
    return folder


def order(zoo: exchange.Contents, part: str) -> list[list[Any]]:
    """A part's tensors in `state_dict` order, as the recipes have them."""
    if part == "target":
        return next(iter(zoo.targets.values()))["tensors"]
    prefix = "block." if part == "source" else f"{part}."
    return [[name.removeprefix(prefix), shape] for name, shape in zoo.recipe["tensors"] if name.startswith(prefix)]


SMALLER = ("--set", "zoo.train=2", "--set", "zoo.select=1", "--set", "zoo.report=2")


def test_a_published_zoo_enters_under_its_own_name_and_runs_use_it_also_started_over_and_with_clocks_set_back(
    do, tmp_path: Path
) -> None:
    folder, cache = published(tmp_path / "kt"), tmp_path / "cache"
    given = ("zoo", "import", folder, *TINY, *ORIGIN, *SMALLER, "--cache", cache, "--json")
    status, out, err = do(*given)
    assert status == 0, err
    assert json.loads(out)["hosts"] == {"train": 2, "select": 1, "report": 2, "targets": 4}
    entered = exchange.contents(Path(json.loads(out)["folder"]))
    assert entered.recipe["origin"] == "paper" and entered.folder.name != GOLDEN.name
    first = torch.load(folder / "inputs" / "0.pth", weights_only=True)
    hosts = entered.load(next(f for f in entered.files if f.path.startswith("hosts/train")))
    assert torch.equal(hosts["source.conv1.weight"][0], first["net.conv1.weight"])
    targets = next(f for f in entered.files if f.target and f.record["role"] == "train")
    assert targets.record["hosts_sha256"] == hosts_digest(hosts, 2)
    where = ("--set", f"run.cache={cache}", "--set", f"run.dir={tmp_path / 'run'}")
    status, out, err = do("run", *TINY, *ORIGIN, *SMALLER, *where, "--json")
    assert status == 0 and "step 1" not in err and "step 2" not in err
    assert json.loads(out)["zoo"] == {"train": 2, "select": 1, "report": 2}
    imported = files(cache)
    status, out, err = do("run", *TINY, *ORIGIN, *SMALLER, *where, "--fresh", "--json")
    assert status == 0 and "step 1" not in err and json.loads(out)["methods"] and files(cache) == imported
    for path in cache.rglob("*.safetensors"):  # a clock that was set back since
        os.utime(path, (time.time() + 10**6,) * 2)
    status, _, err = do("run", *TINY, *ORIGIN, *SMALLER, *where, "--fresh", "--json")
    assert status == 0 and "step 1" not in err and files(cache) == imported


def test_hosts_from_elsewhere_are_never_trained_here(do, tmp_path: Path) -> None:
    where = ("--set", f"run.cache={tmp_path / 'cache'}", "--set", f"run.dir={tmp_path / 'run'}")
    status, _, err = do("run", *TINY, *ORIGIN, *where, "--quiet")
    assert status == 2 and "zoo import" in err


def test_names_may_be_given_where_the_order_says_nothing(do, tmp_path: Path) -> None:
    def scrambled(part: str, name: str) -> str:
        return f"{'z' if part == 'target' else ''}{name.replace('.', '_')}"

    folder = published(tmp_path / "kt", scrambled)
    given = (folder, *TINY, *ORIGIN, *SMALLER)
    assert "--names" in refused(do, tmp_path / "cache", *given)
    zoo = exchange.contents(GOLDEN)
    table = {part: {name: scrambled(part, name) for name, _ in order(zoo, part)} for part in PARTS}
    (tmp_path / "names.json").write_text(json.dumps(table))
    names = ("--names", tmp_path / "names.json", "--cache", tmp_path / "cache")
    assert do("zoo", "import", *given, *names)[0] == 0
    (tmp_path / "names.json").write_text('{"source": 3}')
    assert "names.json" in refused(do, tmp_path / "other", *given, *names[:2])


class Code:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def damage(path: Path, how: str, trap: Path) -> None:
    state = torch.load(path, weights_only=True)
    first = next(iter(state))
    match how:
        case "code":
            torch.save({**state, "code": Code(trap)}, path)
        case "bare pickle":
            path.write_bytes(pickle.dumps(Code(trap)))
        case "shape":
            torch.save({**state, first: state[first][..., :1].clone()}, path)
        case "order":
            torch.save(dict(reversed(state.items())), path)
        case "less":
            torch.save(dict(list(state.items())[1:]), path)
        case "numbers":
            torch.save({**state, first: 3}, path)
        case "sparse":
            torch.save({**state, first: state[first].to_sparse()}, path)
        case "list":
            torch.save([1], path)
        case "huge":
            torch.save({**state, "padding": torch.zeros(1 << 20)}, path)
        case "text":
            path.write_text("weights")
        case "empty":
            path.write_bytes(b"")
        case "link":
            path.rename(trap.with_suffix(".pth"))
            path.symlink_to(trap.with_suffix(".pth"))


HOW = ("code", "bare pickle", "shape", "order", "less", "numbers", "sparse", "list", "huge", "text", "empty", "link")


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("part", ["inputs", "labels"])
def test_a_hostile_or_mismatching_file_is_refused_and_never_run(do, tmp_path: Path, part: str, how: str) -> None:
    folder, trap = published(tmp_path / "kt"), tmp_path / "trap"
    damage(folder / part / "1.pth", how, trap)
    assert f"{part}/1.pth" in refused(do, tmp_path / "cache", folder, *TINY, *ORIGIN, *SMALLER).replace("\\", "/")
    assert not trap.exists()


def test_a_published_zoo_needs_its_name_its_folders_and_enough_models(do, tmp_path: Path) -> None:
    folder = published(tmp_path / "kt")
    assert "zoo.origin" in refused(do, tmp_path / "c", folder, *TINY, *SMALLER)
    assert "5 whole models" in refused(do, tmp_path / "c", folder, *TINY, *ORIGIN)
    shutil.rmtree(folder / "backup_last")
    assert "backup_last" in refused(do, tmp_path / "c", folder, *TINY, *ORIGIN, *SMALLER)
    status, _, err = do("zoo", "import", folder, "--quiet")
    assert status == 2 and "CONFIG" in err


STRANGE: dict[str, Callable[[Any], None]] = {
    "a name that climbs": lambda index: index["recipe"]["tensors"][0].__setitem__(0, "../../x"),
    "a negative size": lambda index: index["recipe"]["tensors"][0].__setitem__(1, [-1]),
    "no files": lambda index: index.__setitem__("files", []),
    "a task that climbs": lambda index: index["recipe"]["task"].__setitem__("name", "../x"),
    "no tensors": lambda index: index["recipe"].__setitem__("tensors", []),
}


@pytest.mark.parametrize("what", STRANGE)
def test_what_an_index_says_is_held_to_what_a_zoo_is(do, exported: Path, tmp_path: Path, what: str) -> None:
    edit(exported, STRANGE[what])
    refused(do, tmp_path / "other", exported)


@pytest.mark.parametrize("kind", [torch.float64, torch.float16])
def test_hosts_of_another_precision_are_refused(do, exported: Path, tmp_path: Path, kind: torch.dtype) -> None:
    index = json.loads((exported / "index.json").read_text())
    del index["record_sha256"]
    for listed in index["files"]:
        path = exported / listed["path"]
        content = save({name: tensor.to(kind) for name, tensor in load_file(path).items()})
        path.write_bytes(content)
        listed["record"] |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    json_files.write_sealed(exported / "index.json", index)
    assert str(kind) in refused(do, tmp_path / "other", exported)


def test_a_damaged_zoo_in_the_cache_hides_no_other(do, exported: Path, tmp_path: Path) -> None:
    cache = tmp_path / "other"
    assert do("zoo", "import", exported, "--cache", cache)[0] == 0
    [whole] = (cache / "zoos").iterdir()
    bad = cache / "zoos" / "0000"
    bad.mkdir()
    (bad / "recipe.json").write_text("{")
    status, out, err = do("zoo", "inspect", "--cache", cache)
    assert status == 0 and whole.name in out and "left out" in err and str(bad) in err
    assert do("zoo", "export", whole.name[:6], tmp_path / "out", "--cache", cache)[0] == 0


def test_nothing_is_exported_into_the_zoo_itself(do, exported: Path, tmp_path: Path) -> None:
    status, _, err = do("zoo", "export", exported, exported / "again")
    assert status == 2 and "lies inside" in err and not (exported / "again").exists()


def test_names_in_a_strangers_zoo_do_not_act_on_the_terminal(do, exported: Path) -> None:
    edit(exported, lambda index: index["recipe"]["source"].__setitem__("note\x1b[31m", "\x1b[31mred"))
    status, out, err = do("zoo", "inspect", exported)
    assert "\x1b" not in out + err and status in (0, 2)
