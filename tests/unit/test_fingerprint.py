"""Hosts and results are not reused where the code or the data behind them computes something else."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from paramtrans import config, run
from paramtrans.errors import StoreError
from paramtrans.plugins import Plugins
from paramtrans.runs.run import RunResult
from paramtrans.storage import json_files
from paramtrans.zoo import fingerprint

Pair = tuple[str, str]
PLUGIN = """
from torch import nn
from paramtrans import BlockAdapter, Component, hookimpl

class Pointwise(BlockAdapter):
    def module(self):
        return nn.Sequential(nn.Conv2d(self.options.channels, self.options.channels, 1), nn.ReLU())

@hookimpl
def paramtrans_block_adapters():
    return [Component("pointwise", "for tests", f"{__name__}:Pointwise")]
"""
SETTINGS = ["source={name='pointwise'}", "zoo.train=3", "zoo.report=2", "training.epochs=1", "run.device=cpu"]


@pytest.fixture
def again(fresh_plugins: Callable[[], Plugins], support: Path, tmp_path: Path) -> Callable[..., RunResult]:
    """Runs with the plugins as they are in their files now; `source` and `task` are their changes."""
    others = set(sys.modules)

    def do(
        folder: str, source: tuple[str, str] = ("", ""), task: tuple[str, str] = ("", ""), fresh: bool = False
    ) -> Any:
        loaded = fresh_plugins()
        (tmp_path / "pointwise.py").write_text(PLUGIN.replace(*source))
        (tmp_path / "tiny_task.py").write_text((support / "tiny_task.py").read_text().replace(*task))
        for name in [name for name in sys.modules if name.startswith("paramtrans_file_") and name not in others]:
            del sys.modules[name]
        from paramtrans.zoo import jobs

        jobs._builder.cache_clear()
        for name in ("pointwise.py", "tiny_task.py"):
            loaded.load_file(tmp_path / name)
        settings = [*SETTINGS, f"run.dir={tmp_path / folder}", "source.channels=4"]
        return run(config.load(support / "tiny.toml", loaded.registry(), settings), loaded=loaded, fresh=fresh)

    return do


def trained(tmp_path: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in (tmp_path / "cache" / "zoos").rglob("*.safetensors")}


@pytest.mark.pipeline
def test_changed_code_is_trained_anew_and_said(
    again: Callable[..., RunResult], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    again("one")
    first = trained(tmp_path)
    again("two")
    assert trained(tmp_path) == first and not caplog.records
    with caplog.at_level(logging.WARNING):
        again("three", source=("nn.ReLU", "nn.Tanh"))
    assert "made by other code or data: source computes something else now" in caplog.text
    assert all(stamp != first[path] for path, stamp in trained(tmp_path).items() if "hosts" in path.parts)
    with pytest.raises(StoreError, match="holds a run of other code: source computes something else"):
        again("one", source=("nn.ReLU", "nn.Tanh"))
    assert again("one", source=("nn.ReLU", "nn.Tanh"), fresh=True).methods


@pytest.mark.pipeline
def test_changed_data_are_trained_on_anew(
    again: Callable[..., RunResult], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    again("one")
    first = trained(tmp_path)
    with caplog.at_level(logging.WARNING):
        again("two", task=("manual_seed(7)", "manual_seed(8)"))
    assert "train, holdout, test" in caplog.text and trained(tmp_path) != first


def test_hosts_of_an_earlier_release_have_no_fingerprint_and_are_used() -> None:
    now = {"providers": {"task": "acme 2"}, "computes": {"source": [1.0, 2.0]}}
    for then in (None, {}, {"providers": {}}, {"computes": {"other": [1.0]}}):
        assert fingerprint.difference(then, now) is None and fingerprint.newer(then, now) is None


def test_rounding_is_no_other_code_and_another_version_is_said() -> None:
    now = {"providers": {"task": "acme 2"}, "computes": {"source": [1.0, 2.0]}}
    then = {"providers": {"task": "acme 1"}, "computes": {"source": [1.0001, 2.0]}}
    assert fingerprint.difference(then, now) is None
    assert fingerprint.newer(then, now) == "acme 1 then, acme 2 now"
    then["computes"] = {"source": [1.01, 2.0]}
    assert fingerprint.difference(then, now) == "source computes something else now (acme 1 then, acme 2 now)"


@pytest.mark.pipeline
def test_a_run_that_goes_on_under_other_versions_says_so(
    again: Callable[..., RunResult], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = again("one").dir / "run.json"
    record = json_files.unsealed(path, json_files.read_json(path))
    json_files.write_sealed(path, {**record, "versions": {**record["versions"], "torch": "1.0"}})
    with caplog.at_level(logging.WARNING):
        again("one")
    assert caplog.text.count("was begun with torch 1.0, here ") == 1
