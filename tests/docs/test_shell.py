"""Shell and Python blocks of README and docs are run in order, page by page, on small stand-ins for what they name.

Commands stand as they are on the page. The configs in `examples/` are the real ones with small numbers, and a small
network stands for `torchvision:resnet18`. What the docs test of transcripts (`test_docs.py`) runs is left to it.
"""

from __future__ import annotations

import re
import shlex
import shutil
import tomllib
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision.models._api import BUILTIN_MODELS
from torchvision.models.resnet import BasicBlock

from paramtrans.cli.main import main
from paramtrans.config import merge
from paramtrans.config.toml_writer import toml
from paramtrans.plugins import plugins
from tests.docs.test_docs import FENCE, ROOT, RUN, _info

pytestmark = pytest.mark.docs

ELSEWHERE = ("make", "pip", ". .venv", "eval", "torchrun", "python -m trust")
"""Commands that are tried by other tests: make by CI, completion by test_startup, the others by theirs."""
RUNNABLE = ("sh", "python", "toml")
SMALL = {
    "task": {"name": "digits", "flip": True},
    "zoo": {
        "train": 6,
        "select": 2,
        "report": 3,
        "pairs": 2,
        "step1": {"steps": 2, "batch_size": 8},
        "step2": {"steps": 2, "batch_size": 8},
    },
    "translator": {"name": "equivariant", "layers": 1, "width": 8, "heads": 2},
    "training": {"epochs": 1, "batch_size": 3, "evaluate_every": 1, "warmup_epochs": 0},
}


def small_resnet(**options: Any) -> nn.Module:
    """Stands for `torchvision:resnet18`."""
    layers = {
        "conv1": nn.Conv2d(3, 8, 3),
        "layer3": nn.Sequential(BasicBlock(8, 8)),
        "layer4": nn.Sequential(BasicBlock(8, 8)),
        "avgpool": nn.AdaptiveAvgPool2d(1),
        "flatten": nn.Flatten(),
        "fc": nn.Linear(8, 4),
    }
    return nn.Sequential(OrderedDict(layers))


def blocks(page: Path) -> list[tuple[str, str, str]]:
    """Language, title and text of the blocks of a page that are run; a block with a title is a file."""
    fences = [(match["language"], match["info"], match["body"]) for match in FENCE.finditer(page.read_text())]
    return [(language, _info(info).get("title", ""), body) for language, info, body in fences if language in RUNNABLE]


def commands(body: str) -> list[str]:
    """The commands of a block, without comments."""
    lines = (line.partition(" #")[0].strip() for line in body.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


PAGES = [
    path
    for path in sorted([ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("examples/**/README.md")])
    if path.relative_to(ROOT).as_posix() not in RUN and any(language == "sh" for language, *_ in blocks(path))
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a page is read: its examples made small, a network and images."""
    (tmp_path / "examples").mkdir()
    for path in ROOT.glob("examples/*.toml"):
        document = merge.merge(tomllib.loads(path.read_text()), SMALL)
        (tmp_path / "examples" / path.name).write_text(toml(document))
    shutil.copytree(ROOT / "examples" / "data", tmp_path / "examples" / "data")
    monkeypatch.setitem(BUILTIN_MODELS, "resnet18", small_resnet)
    torch.manual_seed(0)
    save_file(small_resnet().state_dict(), tmp_path / "model.safetensors")
    numpy.save(tmp_path / "images.npy", numpy.random.default_rng(0).normal(size=(40, 3, 8, 8)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PARAMTRANS_CACHE", str(tmp_path / "cache"))
    plugins.cache_clear()
    return tmp_path


def called(command: str) -> None:
    """Call a command as the page has it."""
    program, *arguments = shlex.split(command)
    assert program == "paramtrans", f"how is this tried? {command}"
    assert main(arguments) == 0, command


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_the_blocks_of_a_page_run_as_they_stand(page: Path, folder: Path) -> None:
    names: dict[str, Any] = {
        "network": small_resnet().eval(),
        "images": torch.from_numpy(numpy.load("images.npy")).float(),
    }
    tried = 0
    for language, title, body in blocks(page):
        if title:
            is_config = language == "toml" and "[zoo]" in body
            Path(title).write_text(toml(merge.merge(tomllib.loads(body), SMALL)) if is_config else body)
        elif language == "python":
            exec(compile(body, str(page), "exec"), names)
        for command in commands(body) if language == "sh" else ():
            if not command.startswith(ELSEWHERE):
                called(command)
                tried += 1
    assert tried or page.name in ("trust.md", "scaling.md")


def test_every_target_of_make_that_a_page_names_is_there() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]
    named = {name for page in pages for name in re.findall(r"(?:^|`)make ([\w-]+)", page.read_text(), re.MULTILINE)}
    assert named and named <= targets
    assert shutil.which("make") is None or "demo" in named
