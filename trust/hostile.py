"""Hostile files and configs: refused in words, with bounded memory and time, and nothing run or written elsewhere."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from paramtrans.errors import StoreError
from paramtrans.storage import json_files
from trust.checks import Count, Setting
from trust.runs import Process, Shell, limited, undisturbed

MEMORY = 3000
"""Megabytes more than it has at its start that a process may ask for."""
SECONDS = 60.0
MOST_LINES = 110
"""Of message: a config with a hundred mistakes is told them."""

Case = tuple[str, Callable[[Path], list[str]]]
"""A name, and what makes the hostile files in a folder; it returns the arguments of `paramtrans`."""


def hostile_configs(setting: Setting, count: Count) -> None:
    """Configs that are too deep, too large, or ask for absurd sizes."""
    undisturbed(setting.folder.parent / "undisturbed")  # so that forks need not import
    attempt(setting, count, [*_texts(), *_sizes()])


def attempt(setting: Setting, count: Count, cases: list[Case]) -> None:
    """Each case in a folder of its own, beside a file that must stay as it is; it must be refused in words."""
    cases = cases if setting.trials >= len(cases) else setting.random.sample(cases, setting.trials)
    for number, (name, make) in enumerate(cases):
        folder = setting.folder / f"case-{number}"
        outside = folder / "outside"
        outside.mkdir(parents=True)
        (outside / "mine.txt").write_text("mine")
        arguments = make(folder)
        shell = Shell(folder)
        process = Process(folder / "output", limited(lambda a=arguments: _do(a), MEMORY), shell.environment)
        ended = process.wait(SECONDS)
        problems = ["hung"] if ended.status is None else ended.refused(MOST_LINES)
        if [(path.name, path.read_text()) for path in outside.iterdir()] != [("mine.txt", "mine")]:
            problems.append(f"outside there are {sorted(path.name for path in outside.iterdir())}")
        count.add(name, problems)


def seal(path: Path, document: dict[str, Any]) -> None:
    """Write a document with a checksum of itself, as a stranger's program would: also one that is no JSON."""
    try:
        json_files.write_sealed(path, document)
    except StoreError:
        path.write_text(json.dumps({**document, json_files.SEAL: "0" * 64}))


def _do(arguments: list[str]) -> int:
    """`paramtrans`, or, for what has no command, its function."""
    from paramtrans import PretrainedTranslator, load_translator
    from paramtrans.errors import ParamtransError
    from trust.runs import _main

    functions = {"load": load_translator, "pretrained": PretrainedTranslator.from_pretrained}
    if arguments[0] not in functions:
        return _main(arguments, 0)
    try:
        functions[arguments[0]](arguments[1])
    except ParamtransError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _texts() -> Iterator[Case]:
    texts = {
        "a key of 400,000 parts": "a." * 400_000 + "a = 1",
        "a million brackets": "a = " + "[" * 900_000,
        "closed brackets": "a = " + "[" * 400_000 + "]" * 400_000,
        "deep inline tables": "a = " + "{b = " * 150_000,
        "many unknown tables": "\n".join(f"[t{i}]\nx = 1" for i in range(50_000)),
        "many unknown options": "[zoo]\n" + "\n".join(f"x{i} = 1" for i in range(80_000)),
        "a number without end": "zoo.train = " + "9" * 900_000,
        "a fraction without end": "training.lr = 0." + "1" * 900_000,
        "a long text": 'task = "' + "x" * 900_000 + '"',
        "many objectives": "objectives = [" + '"x",' * 200_000 + "]",
        "many tables of arrays": "[[objectives]]\nname = 'x'\n" * 30_000,
        "a table under many names": "\n".join(f"[a.{'b.' * 400}c{i}]" for i in range(1_000)),
        "zeros": "\0" * 500_000,
        "a sweep of everything": "[sweep.over]\n" + "\n".join(f'"zoo.x{i}" = [1, 2, 3, 4]' for i in range(60)),
        "itself": 'extends = "x.toml"',
    }
    for name, text in texts.items():
        yield name, lambda folder, text=text: ["run", write(folder / "x.toml", text.encode()), "--dry-run", "--quiet"]


def _sizes() -> Iterator[Case]:
    settings = [
        *(f"translator.{key}={size}" for key in ("width", "token_width", "layers") for size in (10**9, 10**30)),
        *(
            f"target={{name='{name}', channels=4, hidden={size}}}"
            for name in ("conv", "mlp")
            for size in (10**9, 10**19)
        ),
        *(f"target={{name='conv', channels=4, hidden=2, kernel={size}}}" for size in (10**9 + 1, 2**62 + 1)),
        *(f"zoo.{key}={size}" for key in ("train", "select", "report", "shard") for size in (10**8, 10**40)),
        *(f"zoo.step1.{key}={size}" for key in ("steps", "batch_size") for size in (10**10, 10**40)),
        *(f"training.{key}=1{'0' * 4000}" for key in ("epochs", "lr")),
        "translator={name='equivariant', width=1000000000, heads=1}",
        "translator={name='attention', width=1000000000, heads=1}",
        "translator={name='mlp', width=100000000000}",
        "task.channels=1000000000",
        "objectives=[{name='functional', examples=1000000000000}]",
    ]
    for setting in settings:
        yield setting[:60], lambda folder, s=setting: [*Shell(folder).arguments(), "--set", s]


def write(path: Path, content: bytes) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return str(path)
