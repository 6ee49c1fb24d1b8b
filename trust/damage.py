"""Damage to any file of ours is noticed and named; a cache is made good again, a folder of the user's is refused."""

from __future__ import annotations

import json
import logging
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

from paramtrans import PretrainedTranslator, config
from paramtrans.errors import StoreError
from paramtrans.plugins import plugins
from paramtrans.runs.folder import RunFolder
from paramtrans.runs.run import Run
from paramtrans.training.trainer import Trainer
from paramtrans.utils import seeds
from paramtrans.utils.progress import Reporter
from paramtrans.zoo import do_job
from trust.checks import Count, Setting
from trust.runs import CONFIG, Shell, undisturbed

UNREAD = {
    "zoo": (".lock",),
    "translator": ("README.md",),  # a page for people; in a finished run it is checked as all else is
    "run": (".lock",),
    "checkpoint": (),
}
"""Files that nothing reads."""


def any_damage(setting: Setting, count: Count) -> None:
    """Random damages to random files of a zoo, a translator, a finished run and a checkpoint, in turn."""
    whole, _ = undisturbed(setting.folder.parent / "undisturbed")
    point = _interrupted(setting.folder / "interrupted")
    trainer = _trainer(whole)
    expected = {name: t.clone() for name, t in trainer(point).items()}
    ways: tuple[tuple[str, Path, Callable[[Path], list[str]]], ...] = (
        ("zoo", whole.zoos, lambda copy: _zoo(copy, whole)),
        ("translator", whole.run / "translator", _translator),
        ("run", whole.run, lambda copy: _run(copy, whole)),
        ("checkpoint", point, lambda copy: _checkpoint(trainer, copy, expected)),
    )
    random = setting.random
    for trial in range(setting.trials):
        name, original, read = ways[trial % len(ways)]
        copy = setting.folder / f"trial-{trial}" / original.name
        shutil.copytree(original, copy)
        path = random.choice(sorted(p for p in copy.rglob("*") if p.is_file() and p.name not in UNREAD[name]))
        kind = damage(path, random)
        with messages() as said:
            problems = read(copy)
        if not any(path.name.removesuffix(".json") in line for line in said):
            problems.append(f"not named in {said}")
        count.add(f"{name}: {path.name} {kind}", problems)
        shutil.rmtree(copy.parent)


def damage(path: Path, random: Random) -> str:
    """Change a file in one of the ways that happen to files; returns which."""
    before = path.read_bytes()
    others = [p for p in sorted(path.parent.rglob("*")) if p.is_file() and p != path and p.read_bytes() != before]
    at = random.randrange(len(before)) if before else 0
    after: dict[str, bytes | None] = {
        "truncated": before[:at],
        "with a flipped bit": before[:at] + bytes([before[at] ^ 1 << random.randrange(8)]) + before[at + 1 :],
        "longer": before + random.randbytes(random.randint(1, 100)),
        "with zeros": before[:at] + bytes(len(before[at : at + 512])) + before[at + 512 :],
        "emptied": b"",
        "removed": None,
    }
    after |= {"swapped": random.choice(others).read_bytes()} if others else {}
    kind = random.choice([kind for kind, content in after.items() if not _says_the_same(before, content)])
    content = after[kind]
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    return kind


def _says_the_same(before: bytes, after: bytes | None) -> bool:
    """Whether nothing was lost: the same bytes, or JSON of the same content, such as one without its last line end."""
    if after is None or before == after:
        return after is not None
    try:
        return bool(json.loads(before) == json.loads(after))
    except ValueError:
        return False


@contextmanager
def messages() -> Iterator[list[str]]:
    """All warnings and errors of ours while it is open."""
    said: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("paramtrans")
    logger.addHandler(handler)
    logger.propagate = False
    logger.setLevel(logging.WARNING)
    _said.append(said)
    try:
        yield said
    finally:
        _said.pop()
        logger.removeHandler(handler)
        logger.propagate = True


_said: list[list[str]] = []


def _refused(do: Callable[[], Any]) -> Any:
    """What `do` returns, or the message of its refusal among the messages."""
    try:
        return do()
    except StoreError as error:
        _said[-1].append(str(error))
        return None


def _zoo(copy: Path, whole: Shell) -> list[str]:
    """The zoo is made good again, to the same bits."""
    run_ = _run_of(whole, f"run.cache={copy}")
    for step in (1, 2):
        run_.zoo.write_recipe(step)
        for job in run_.zoo.missing(step):
            do_job(job, lambda steps: None)
    names = [
        p.relative_to(whole.zoos) for p in whole.zoos.rglob("*") if p.suffix == ".safetensors" or "recipe" in p.name
    ]
    return [f"{name} differs" for name in names if (copy / name).read_bytes() != (whole.zoos / name).read_bytes()]


def _translator(copy: Path) -> list[str]:
    loaded = _refused(lambda: PretrainedTranslator.from_pretrained(copy))
    if loaded is not None and loaded.card is None:  # a translator may have none, and then says so
        _said[-1].append("card.json: there is none")
        return []
    return [] if loaded is None else ["loaded"]


def _run(copy: Path, whole: Shell) -> list[str]:
    """A changed evaluation is never answered from."""
    folder = RunFolder(copy, whole.record()["config"])

    def answer() -> dict[str, Any] | None:
        with folder.locked():
            return folder.resume()

    answered = _refused(answer)
    good = RunFolder(whole.run, folder.config).resume()
    return [] if answered is None or answered == good else ["another answer"]


def _checkpoint(trainer: Callable[[Path], dict[str, Any]], copy: Path, expected: dict[str, Any]) -> list[str]:
    """Training goes on from an earlier point, to the same bits."""
    resumed = trainer(copy)
    return ["other weights"] if any(not tensor.equal(resumed[name]) for name, tensor in expected.items()) else []


def _run_of(whole: Shell, *settings: str) -> Run:
    fixed = ["run.device=cpu", f"run.dir={whole.run}", *settings]
    return Run(config.load(CONFIG, plugins().registry(), fixed), "run", Reporter(), plugins())


def _trainer(whole: Shell) -> Callable[[Path], dict[str, Any]]:
    """Trains the translator from a checkpoint's folder; returns its weights."""
    run_ = _run_of(whole, f"run.cache={whole.zoos}")
    run_.builder.task.prepare(run_.cache)
    train, select = run_.zoo.load("train"), run_.zoo.load("select")

    def run(checkpoint: Path) -> dict[str, Any]:
        trainer = Trainer(
            run_.builder,
            run_.builder.translator(seeds.derive(run_.config.training.seed, "translator")),
            train,
            select,
            checkpoint,
        )
        trainer.run(lambda epoch, metrics: None)
        return dict(trainer.translator.state_dict())

    return run


def _interrupted(folder: Path) -> Path:
    """The checkpoint of a run that was stopped while it trained its translator."""
    shell = Shell(folder)
    process = shell.start(shell.arguments(), nap=0.05)
    while not list(shell.run.glob("checkpoint/*.json")) and process.poll() is None:
        time.sleep(0.002)
    process.kill(signal.SIGKILL)
    process.wait()
    return shell.run / "checkpoint"
