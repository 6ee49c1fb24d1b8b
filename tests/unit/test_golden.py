"""What the first release wrote is read by this one (docs/formats.md)."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from paramtrans import load_translator
from paramtrans.builder import Builder
from paramtrans.config import Config
from paramtrans.plugins import Plugins
from paramtrans.plugins.registry import Registry
from paramtrans.runs.run import run
from paramtrans.storage import sealed_params
from paramtrans.storage.cache import cache_dir
from paramtrans.zoo import Zoo

GOLDEN = Path(__file__).parents[1] / "golden"
SETTINGS = (
    "translator.width=4",
    "translator.token_width=4",
    "translator.channel_width=4",
    "zoo.train=3",
    "zoo.select=1",
    "zoo.report=2",
)


def test_a_translator_writes_what_it_wrote_then() -> None:
    translator = load_translator(GOLDEN / "run" / "translator")
    [shard] = GOLDEN.glob("zoos/*/hosts/report-*.safetensors")
    hosts, _ = sealed_params.load_params(shard)
    source = {name.removeprefix("source."): t for name, t in hosts.items() if name.startswith("source.")}
    expected, _ = sealed_params.load_params(GOLDEN / "translated.safetensors")
    written = translator.translate(source)
    assert written.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(written[name], tensor)


def test_a_zoo_is_found_under_its_old_name_and_is_whole(tiny_config: Callable[..., Config]) -> None:
    config = tiny_config(*SETTINGS)
    cache = cache_dir(config.run.cache)
    shutil.copytree(GOLDEN / "zoos", cache / "zoos")
    builder = Builder(config, _components())
    zoo = Zoo(builder, cache)
    assert zoo.missing(1) == [] and zoo.missing(2) == []
    assert [len(zoo.load(role)) for role in ("train", "select", "report")] == [3, 1, 2]


def test_a_finished_run_answers_from_its_folder(
    tiny_config: Callable[..., Config], tiny_plugins: Plugins, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(GOLDEN / "run", tmp_path / "run")
    monkeypatch.setattr(Zoo, "missing", lambda self, step, outdated=0: pytest.fail("nothing is to be trained"))
    result = run(tiny_config(*SETTINGS), loaded=tiny_plugins)
    assert result.methods["translated"]["n"] == 2
    assert result.as_dict()["run_dir"] == str(tmp_path / "run")


def _components() -> Registry:
    from paramtrans.plugins import components

    return components()
