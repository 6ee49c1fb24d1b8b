"""What people pass on: checkpoints, calibration inputs, zoos, hosts, translators with cards; each made to harm."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from paramtrans.storage import json_files, sealed_params
from trust.checks import Count, Setting
from trust.hostile import Case, attempt, seal, write
from trust.hostilefiles import Canary, copy_of, edit
from trust.runs import CONFIG, PLUGIN, Shell, undisturbed

Bad = Callable[[Path], object]
"""Makes a hostile file at a path."""
NETWORK = "def small():\n    from torch import nn\n\n    return nn.Linear(4, 4)\n"
FOLDERS = {"former": "backup_begin", "source": "inputs", "latter": "backup_last", "target": "labels"}
"""Where the paper's published zoos have the parts of a host."""


def hostile_imports(setting: Setting, count: Count) -> None:
    """Every door by which the files of others come in."""
    whole, _ = undisturbed(setting.folder.parent / "undisturbed")
    exported = setting.folder / "exported"
    _export(whole, exported)
    cases = [*_checkpoints(), *_inputs(), *_hosts(), *_zoos(exported), *_published(whole), *_cards(whole)]
    attempt(setting, count, cases)


def bad_files() -> dict[str, Bad]:
    """Files that are no file of ours, whatever they are called."""
    return {
        "text": lambda path: path.write_text("weights"),
        "nothing": lambda path: path.write_bytes(b""),
        "a pickle": lambda path: path.write_bytes(pickle.dumps(Canary(_owned(path)))),
        "a torch file": lambda path: _torch(path, {"weight": Canary(_owned(path))}),
        "an old torch file": lambda path: _torch(path, {"weight": Canary(_owned(path))}, old=True),
        "deep lists": lambda path: path.write_bytes(b"\x80\x02" + b"]" * 500_000 + b"a" * 499_999 + b"."),
        "a zip bomb": _bomb,
        "a terabyte": _terabyte,
        "a pipe": os.mkfifo,
        "a device": lambda path: path.symlink_to("/dev/zero"),
        "a circle": lambda path: path.symlink_to(path.name),
        "a folder": lambda path: path.mkdir(),
    }


def _checkpoints() -> Iterator[Case]:
    """A user's network for `paramtrans inspect` and `translate`."""
    tensors: dict[str, Callable[[], Any]] = {
        "a list": lambda: [1, 2],
        "numbers": lambda: {"weight": 3, "bias": 4},
        "a huge view of one value": lambda: {"weight": _torch_module().zeros(1).expand(10**12), "bias": _ones(4)},
        "another shape": lambda: {"weight": _ones(4, 5), "bias": _ones(4)},
        "more tensors": lambda: {"weight": _ones(4, 4), "bias": _ones(4), "x": _ones(1)},
        "sparse tensors": lambda: {"weight": _ones(4, 4).to_sparse(), "bias": _ones(4)},
        "tensors without values": lambda: {"weight": _ones(4, 4).to("meta"), "bias": _ones(4)},
        "texts of a megabyte": lambda: {"x" * 1_000_000: _ones(4, 4), "bias": _ones(4)},
        "dictionaries in each other": lambda: _nested(200),
    }
    for suffix in (".pth", ".pt", ".safetensors"):
        for name, make in bad_files().items():
            yield f"checkpoint{suffix}: {name}", lambda folder, m=make, s=suffix: _model(folder, s, m)
    for name, content in tensors.items():
        yield f"checkpoint.pth: {name}", lambda folder, c=content: _model(folder, ".pth", lambda p: _torch(p, c()))


def _inputs() -> Iterator[Case]:
    """Calibration inputs."""
    header = "{{'descr': '{}', 'fortran_order': False, 'shape': ({},), }}"
    arrays = {
        "objects": header.format("|O", 3),
        "a shape that lies": header.format("<f4", 10**12),
        "a shape that overflows": header.format("<f4", 2**62),
        "a negative shape": header.format("<f4", -1),
        "no header": "import os",
        "a deep header": "(" * 5_000,
    }
    for name, text in arrays.items():
        content = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + bytes(16)
        yield f"inputs.npy: {name}", lambda folder, c=content: _data(folder, ".npy", lambda p: p.write_bytes(c))
    for name in ("a pickle", "a pipe", "a device", "a terabyte"):
        for suffix in (".npy", ".safetensors"):
            make = bad_files()[name]
            yield f"inputs{suffix}: {name}", lambda folder, m=make, s=suffix: _data(folder, s, m)


def _hosts() -> Iterator[Case]:
    """Finished hosts that a config names."""
    for name, make in bad_files().items():
        yield f"report_from: {name}", lambda folder, m=make: _report_from(folder, m)


def _zoos(exported: Path) -> Iterator[Case]:
    """Zoos for `paramtrans zoo import`, with checksums that fit where that could help."""
    for name, make in bad_files().items():
        yield f"index.json: {name}", lambda folder, m=make: _zoo(folder, exported, "index.json", m)
        yield f"a shard: {name}", lambda folder, m=make: _zoo(folder, exported, "hosts/train-*.safetensors", m)
    for name, content in {"deep JSON": b"[" * 2_000_000, "a number without end": b"9" * 2_000_000}.items():
        make = lambda path, c=content: path.write_bytes(c)  # noqa: E731
        yield f"index.json: {name}", lambda folder, m=make: _zoo(folder, exported, "index.json", m)
    edits: dict[str, tuple[str, Any]] = {
        "a path that climbs": ("files.0.path", "../../outside/mine.txt"),
        "a path from the root": ("files.0.path", "/etc/passwd"),
        "a path of other signs": ("files.0.path", "hosts/train-0000000-0000003.safetensors\n../x"),
        "sizes of a terabyte": ("recipe.tensors", [["former.0.weight", [10**6, 10**6]]]),
        "numbers beyond all": ("recipe.tensors", [["former.0.weight", [10**400]]]),
        "many tensors": ("recipe.tensors", [[f"t{i}", [1]] for i in range(50_000)]),
        "a task that is a path": ("recipe.task", "../../outside"),
        "a target that is a path": ("targets", {"../../outside/owned": {}}),
        "more hosts than there are": ("files.0.record.seeds", list(range(10**5))),
        "a size that lies": ("files.0.record.bytes", 2**62),
        "times without end": ("files.0.record.seconds", 1e308 * 10),
    }
    for name, (at, value) in edits.items():
        yield f"an index with {name}", lambda folder, a=at, v=value: _indexed(folder, exported, a, v)


def _published(whole: Shell) -> Iterator[Case]:
    """Zoos in the layout of the paper's."""
    for part, place in FOLDERS.items():
        for name in ("a pickle", "a torch file", "a zip bomb", "a terabyte", "a pipe", "a device", "a circle"):
            make = bad_files()[name]
            yield f"{place}/1.pth: {name}", lambda folder, m=make, p=part: _paper(folder, whole, p, m)


def _cards(whole: Shell) -> Iterator[Case]:
    """Folders for `from_pretrained`."""
    for name, make in bad_files().items():
        yield f"card.json: {name}", lambda folder, m=make: _card(folder, whole, m)
    for name, content in {"deep JSON": b"[" * 2_000_000, "a number without end": b"9" * 2_000_000}.items():
        yield f"card.json: {name}", lambda folder, c=content: _card(folder, whole, lambda p: p.write_bytes(c))
    for change in ({"format": 1}, {"format": 10**400}, {"format": 1, "name": ["x"] * 10**5}):
        yield f"card.json: {change}"[:60], lambda folder, c=change: _card(folder, whole, lambda p: _seal(p, c))
    for change in ({"source": None}, {"translator": {"name": "x" * 10**6}}, {"target": {"name": "conv", "\0": 1}}):
        yield (
            f"from_pretrained: {change}"[:60],
            lambda folder, c=change: _pretrained(folder, whole, c),
        )


# How the files are made, and what is asked of them


def _owned(path: Path) -> Path:
    """Where a canary would make its folder: beside the file that must stay, whichever folder the file is in."""
    return next(above / "outside" for above in path.parents if (above / "outside").is_dir()) / "owned"


def _torch_module() -> Any:
    import torch

    return torch


def _ones(*shape: int) -> Any:
    return _torch_module().ones(*shape)


def _torch(path: Path, content: Any, old: bool = False) -> None:
    _torch_module().save(content, path, _use_new_zipfile_serialization=not old)


def _nested(depth: int) -> dict[str, Any]:
    return {"state_dict": _nested(depth - 1)} if depth else {"weight": 1}


def _bomb(path: Path) -> None:
    path.write_bytes(_packed())


@cache
def _packed() -> bytes:
    """A torch file whose one tensor is four gigabytes of zeros, packed into a few megabytes."""
    kept, packed = io.BytesIO(), io.BytesIO()
    _torch_module().save({"weight": _torch_module().zeros(8)}, kept)
    with zipfile.ZipFile(kept) as good, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as bad:
        for name in good.namelist():
            if not name.endswith("/data/0"):
                bad.writestr(name, good.read(name))
                continue
            with bad.open(name, "w", force_zip64=True) as member:
                for _ in range(64):
                    member.write(bytes(2**26))
    return packed.getvalue()


def _terabyte(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**40)


def _model(folder: Path, suffix: str, make: Bad) -> list[str]:
    make(folder / f"model{suffix}")
    return ["inspect", str(folder / f"model{suffix}"), "--arch", f"{write(folder / 'n.py', NETWORK.encode())}:small"]


def _data(folder: Path, suffix: str, make: Bad) -> list[str]:
    make(folder / f"inputs{suffix}")
    arguments = _model(folder, ".pth", lambda path: _torch(path, {"weight": _ones(4, 4), "bias": _ones(4)}))
    return [*arguments, "--calibrate", str(folder / f"inputs{suffix}")]


def _report_from(folder: Path, make: Bad) -> list[str]:
    make(folder / "hosts.safetensors")
    return Shell(folder).arguments("--set", f"zoo.report_from={folder / 'hosts.safetensors'}")


def _export(whole: Shell, out: Path) -> None:
    from paramtrans.zoo import exchange

    [zoo] = (whole.zoos / "zoos").iterdir()
    exchange.export(exchange.contents(zoo), out)


def _zoo(folder: Path, exported: Path, name: str, make: Bad) -> list[str]:
    shutil.copytree(exported, folder / "zoo")
    path = next((folder / "zoo").glob(name))
    path.unlink()
    make(path)
    return _import(folder)


def _import(folder: Path, *more: str) -> list[str]:
    return ["zoo", "import", str(folder / "zoo"), *more, "--cache", str(folder / "cache"), "--quiet"]


def _indexed(folder: Path, exported: Path, at: str, value: Any) -> list[str]:
    shutil.copytree(exported, folder / "zoo")
    index = json.loads((folder / "zoo" / "index.json").read_bytes())
    del index[json_files.SEAL]
    *before, last = [int(key) if key.isdigit() else key for key in at.split(".")]
    place = index
    for key in before:
        place = place[key]
    place[last] = value
    seal(folder / "zoo" / "index.json", index)
    return _import(folder)


def _paper(folder: Path, whole: Shell, bad: str, make: Bad) -> list[str]:
    """Three hosts as the paper has them, one file of which is hostile."""
    shards, _ = sealed_params.load_params(next(whole.zoos.glob("zoos/*/hosts/train-*.safetensors")))
    targets, _ = sealed_params.load_params(next(whole.zoos.glob("zoos/*/targets/*/train-*.safetensors")))
    for part, name in FOLDERS.items():
        (folder / "zoo" / name).mkdir(parents=True)
        tensors = {key.partition(".")[2]: t for key, t in {**shards, **targets}.items() if key.startswith(f"{part}.")}
        for model in range(3):
            path = folder / "zoo" / name / f"{model}.pth"
            if (part, model) == (bad, 1):
                make(path)
            else:
                _torch(path, {key: tensor[model].clone() for key, tensor in tensors.items()})
    sizes = ("zoo.origin=paper", "zoo.train=2", "zoo.select=0", "zoo.report=2")
    settings = [word for text in sizes for word in ("--set", text)]
    return _import(folder, str(CONFIG), "--plugin", str(PLUGIN), *settings)


def _card(folder: Path, whole: Shell, make: Bad) -> list[str]:
    copied = copy_of(folder, whole)
    (copied / "card.json").unlink()
    make(copied / "card.json")
    return ["pretrained", str(copied)]


def _pretrained(folder: Path, whole: Shell, changes: dict[str, Any]) -> list[str]:
    return ["pretrained", *edit(copy_of(folder, whole), changes)[1:]]


def _seal(path: Path, document: dict[str, Any]) -> None:
    seal(path, document)
