"""Guards that stand at a boundary each: names, outputs, numbers, checksums, torch's state, content of files.

`WITHOUT` takes the guard of a check away (`python -m trust CHECK --unguarded`), so that the check is seen to fail.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from paramtrans.storage import json_files, sealed_params
from trust import networks
from trust.checks import Count, Setting
from trust.hostile import write
from trust.runs import Ended, Process, Shell, _main, undisturbed

NET = "from torch import nn\n\ndef small():\n    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))\n"
NAMES = ("../climbed", "../../climbed", "/", "..", "a/b", ".hidden", "a\nb", "\x1b[31mred", "x" * 300)


def _ended(folder: Path, arguments: list[str], shell: Shell | None = None) -> Ended:
    environment = (shell or Shell(folder)).environment
    return Process(folder / "output", lambda: _main(arguments, 0), environment).wait(120)


def _refused(ended: Ended, because: str) -> list[str]:
    """What is wrong with a refusal, which must be for this reason."""
    return ended.refused() + ([] if because in ended.err else [f"not because {because!r}: {ended.err[-200:]!r}"])


def names_from_files(setting: Setting, count: Count) -> None:
    """`run --from` writes nowhere but below the current folder, whatever a sealed record calls its run."""
    whole, _ = undisturbed(setting.folder.parent / "undisturbed")
    record = {key: value for key, value in whole.record().items() if key != json_files.SEAL}
    for number, name in enumerate((*NAMES, str(setting.folder / "absolute"))[: setting.trials]):
        folder = setting.folder / f"case-{number}" / "deep" / "below"
        folder.mkdir(parents=True)
        json_files.write_sealed(folder / "run.json", {**record, "name": name})
        before = sorted(setting.folder.rglob("*"))
        arguments = ["run", "--from", str(folder / "run.json"), "--quiet", "--set", "training.epochs=1"]

        def there(folder: Path = folder, arguments: list[str] = arguments) -> int:
            os.chdir(folder)
            return _main(arguments, 0)

        # The cache of the whole run holds its zoo, so that nothing but the name stands against the run.
        ended = Process(setting.folder.parent / "output", there, whole.environment).wait(120)
        problems = _refused(ended, "no name of a file or folder")
        problems += [f"wrote {path}" for path in sorted(setting.folder.rglob("*")) if path not in before][:1]
        count.add(f"a run called {name[:30]!r}", problems)


def outputs_replace_nothing(setting: Setting, count: Count) -> None:
    """What is written takes the place of files alone, and never of an input or of a finished run's file."""
    whole, _ = undisturbed(setting.folder.parent / "undisturbed")
    writers: dict[str, Callable[[Path], object]] = {
        "a pipe": os.mkfifo,
        "a device": lambda path: path.symlink_to("/dev/null"),
        "a link": lambda path: path.symlink_to(write(path.with_name("mine"), b"mine")),
    }
    for number, (what, make) in enumerate(list(writers.items())[: setting.trials]):
        path = setting.folder / str(number) / "page.html"
        path.parent.mkdir(parents=True)
        make(path)
        before = path.lstat().st_ino
        ended = _ended(setting.folder, ["compare", str(whole.run), "--html", str(path), "--force"])
        replaced = [] if path.lstat().st_ino == before else ["it was replaced"]
        count.add(f"--html onto {what}", _refused(ended, "that would replace") + replaced)
    report = whole.run / "report.html"
    content = report.read_bytes()
    ended = _ended(setting.folder, ["compare", str(whole.run), "--html", str(report)])
    count.add("--html onto a run's file", _refused(ended, "--force") + _same(report, content))
    model, arguments = _network(setting.folder)
    content = model.read_bytes()
    ended = _ended(setting.folder, [*arguments, "--with", "prune", "-o", str(model)])
    count.add("-o onto the model", _refused(ended, "--force") + _same(model, content))


def _same(path: Path, content: bytes) -> list[str]:
    if path.read_bytes() == content:
        return []
    path.write_bytes(content)
    return ["it was overwritten"]


def _network(folder: Path) -> tuple[Path, list[str]]:
    """A file of a network's parameters, and how `translate` is told of it."""
    import torch
    from safetensors.torch import save_file
    from torch import nn

    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "nets.py").write_text(NET)
    save_file(nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3)).state_dict(), folder / "model.safetensors")
    return folder / "model.safetensors", [
        "translate",
        f"{folder}/model.safetensors",
        "--arch",
        f"{folder}/nets.py:small",
    ]


def numbers_are_finite(setting: Setting, count: Count) -> None:
    """No NaN is written as JSON or read from it, and inputs that lead to some write no network."""
    import numpy

    _, arguments = _network(setting.folder)
    for number, scale in enumerate((1e20, 1e30, 3e38)[: setting.trials]):
        numpy.save(setting.folder / "x.npy", numpy.full((24, 6), scale, "float32"))
        out = setting.folder / f"{number}.safetensors"
        ended = _ended(setting.folder, [*arguments, "--calibrate", f"{setting.folder}/x.npy", "-o", str(out), "--json"])
        problems = ["NaN on standard output"] if "NaN" in ended.out or "Infinity" in ended.out else []
        written = [path for path in (out, sealed_params.record_path(out)) if path.exists()]
        problems += [] if ended.status == 2 or (ended.status == 0 and len(written) == 2) else ended.refused()
        problems += [f"{written[0].name} is there"] if ended.status and written else []
        count.add(f"inputs of {scale}", problems)
    for value in (float("nan"), float("inf"), -float("inf")):
        path = setting.folder / "x.json"
        count.add(f"{value} in JSON", _raises(lambda v=value, p=path: json_files.write_json(p, {"x": [v]})))
        path.write_text(json.dumps({"x": value}))
        count.add(f"{value} from JSON", _raises(lambda p=path: json_files.read_json(p)))


def _raises(do: Callable[[], object]) -> list[str]:
    from paramtrans.errors import ParamtransError

    try:
        do()
    except ParamtransError:
        return []
    return ["was taken"]


def changed_results(setting: Setting, count: Count) -> None:
    """Nothing answers from an `evaluation.json` that is not the one whose checksum the run's record has."""
    whole, _ = undisturbed(setting.folder.parent / "undisturbed")
    path = whole.run / "evaluation.json"
    content = path.read_bytes()
    digits = [place for place, letter in enumerate(content) if letter in b"12345678"]
    try:
        for place in setting.random.sample(digits, min(setting.trials, len(digits))):
            path.write_bytes(content[:place] + bytes([content[place] + 1]) + content[place + 1 :])
            for command in ("diagnose", "compare"):
                ended = _ended(setting.folder, [command, str(whole.run)])
                count.add(f"{command}, changed at {place}", _refused(ended, "was changed"))
    finally:
        path.write_bytes(content)


def states_of_torch(setting: Setting, count: Count) -> None:
    """A translation has the same bits under any of the caller's states of torch, and can be trained."""
    import torch
    from torch import nn

    import paramtrans

    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3)).eval()
    inputs = torch.randn(24, 6)
    wanted = paramtrans.translate(network, calibrate=inputs).state_dict()
    for name, around in list(_states().items())[: setting.trials]:
        try:
            with around():
                before = torch.get_rng_state()
                translation = paramtrans.translate(network, calibrate=inputs)
                drawn = not torch.equal(before, torch.get_rng_state())
            other = [key for key, tensor in translation.state_dict().items() if not torch.equal(tensor, wanted[key])]
            trainable = not any(parameter.is_inference() for parameter in translation.parameters())
            problems = [f"{other[0]} differs"] if other else []
            problems += ([] if trainable else ["cannot be trained"]) + (["random numbers were drawn"] if drawn else [])
        except Exception as error:
            problems = [f"{type(error).__name__}: {error}"]
        count.add(name, problems)


def _states() -> dict[str, Callable[[], Any]]:
    import torch

    return {
        "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
        "the device meta": lambda: torch.device("meta"),
        "inference mode": torch.inference_mode,
        "no gradients": torch.no_grad,
        "a fast path that is off": lambda: torch.random.fork_rng(),
    }


def content_in_words(setting: Setting, count: Count) -> None:
    """Files whose content is of another kind than it should be are refused in words."""
    for number, (what, arguments) in enumerate(list(_contents(setting.folder))[: setting.trials]):
        ended = _ended(setting.folder / str(number), arguments)
        count.add(what, ended.refused())


def _contents(folder: Path) -> Iterator[tuple[str, list[str]]]:
    import numpy
    import torch

    _, arguments = _network(folder)
    arrays = {
        "text": numpy.array(["a"]),
        "bytes": numpy.array([b"a"]),
        "dates": numpy.array(["2020-01-01"], dtype="datetime64[D]"),
        "structures": numpy.zeros(3, dtype=[("a", "f4")]),
    }
    for what, array in arrays.items():
        numpy.save(folder / f"{what}.npy", array)
        yield (
            f"inputs of {what}",
            [*arguments, "--calibrate", f"{folder}/{what}.npy", "-o", f"{folder}/out.safetensors"],
        )
    torch.save({1: torch.ones(1)}, folder / "numbers.pt")
    yield "keys that are numbers", ["inspect", f"{folder}/numbers.pt", *arguments[2:]]
    state = {"0.weight": torch.ones(16, 6, dtype=torch.complex64)}
    torch.save(state, folder / "complex.pt")
    yield "complex numbers", ["inspect", f"{folder}/complex.pt", *arguments[2:]]
    write(folder / "deep.pt", b"\x80\x02" + b"]" * 2_500_000 + b"a" * 2_499_999 + b".")
    yield "lists in lists", ["inspect", f"{folder}/deep.pt", *arguments[2:]]
    yield "a mark of byte order", ["run", write(folder / "mark.toml", b"\xef\xbb\xbf[task]\n")]
    yield "a name of 300 letters", ["run", "x" * 300 + ".toml"]
    yield "a home that there is not", ["run", write(folder / "home.toml", b"[run]\ndir = '~nobody-at-all/x'\n")]


def _unguarded(module: str, name: str, instead: Any) -> Callable[[], None]:
    def take_away() -> None:
        import importlib

        owner: Any = importlib.import_module(module)
        setattr(owner, name, instead)

    return take_away


def _nothing(*given: object, **options: object) -> None:
    return None


def _lax() -> None:
    """JSON as Python writes and reads it, and commands that do not look at their numbers."""
    from paramtrans.networks import files as networks
    from paramtrans.networks.results import measuring
    from paramtrans.utils import documents

    documents.content = lambda document, indent=None: json.dumps(document).encode()
    documents.text = lambda document, indent=None: json.dumps(document)
    documents.parse = json.loads
    networks._check_written = _nothing
    measuring._check_finite = _nothing


def _unchecked_results() -> None:
    from paramtrans.runs import folder

    read = folder.read_record
    folder.read_record = lambda *given, **options: read(*given, **options).model_copy(update={"files": {}})


def _unpinned() -> None:
    import paramtrans

    paramtrans.translate = paramtrans.translate.__wrapped__


def _unread() -> None:
    from paramtrans.networks.loading import parameter_files
    from paramtrans.storage import cache, outside

    parameter_files.read_parameters = lambda path: __import__("torch").load(path, weights_only=True)
    cache.at_home = lambda path, otherwise: Path(path).expanduser()
    outside._checked = lambda path, status, at_most: status.st_size


WITHOUT: dict[str, Callable[[], None]] = {
    "names_from_files": _unguarded("paramtrans.storage.names", "checked", lambda name, where: name),
    "outputs_replace_nothing": lambda: [
        _unguarded("paramtrans.storage.files", "check_replaceable", _nothing)(),
        _unguarded("paramtrans.storage.outputs", "check", _nothing)(),
    ][0],
    "numbers_are_finite": _lax,
    "changed_results": _unchecked_results,
    "states_of_torch": _unpinned,
    "content_in_words": _unread,
    "layers_keep_what_is_no_size": networks.unguarded,
}
"""For each of these checks, what takes its guard away."""
