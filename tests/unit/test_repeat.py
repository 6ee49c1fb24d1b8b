"""`run.json` alone is enough to make a run again."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from paramtrans import run
from paramtrans.config import Config
from paramtrans.errors import StoreError
from paramtrans.plugins import Plugins
from paramtrans.runs.folder import versions
from paramtrans.runs.repeat import again, differences
from paramtrans.runs.run import RunResult
from paramtrans.storage import json_files
from paramtrans.utils.progress import Reporter

pytestmark = pytest.mark.pipeline


@pytest.fixture
def finished(tiny_config: Callable[..., Config], tiny_plugins: Plugins) -> RunResult:
    return run(tiny_config("zoo.seed=3", "training.seed=4", "evaluation.seed=5"), loaded=tiny_plugins)


def test_a_run_made_again_from_its_record_alone_has_the_same_numbers(
    finished: RunResult, tiny_plugins: Plugins, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog
) -> None:
    record = shutil.copy(finished.dir / "run.json", tmp_path / "run.json")
    expected, weights = finished.methods, (finished.dir / "translator" / "translator.safetensors").read_bytes()
    shutil.rmtree(finished.dir)
    shutil.rmtree(tmp_path / "cache")
    monkeypatch.chdir(tmp_path)
    result = again(Path(record), [], Reporter(), tiny_plugins).do(fresh=False)
    assert result.dir == Path("runs/run-again")
    assert without_times(result.methods) == without_times(expected)
    assert (result.dir / "translator" / "translator.safetensors").read_bytes() == weights
    assert not caplog.records


def without_times(methods: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {name: {k: v for k, v in values.items() if "seconds" not in k} for name, values in methods.items()}


def test_settings_change_what_is_made_again(finished: RunResult, tiny_plugins: Plugins, tmp_path: Path) -> None:
    repeated = again(finished.dir / "run.json", ["training.epochs=9", f"run.dir={tmp_path}"], Reporter(), tiny_plugins)
    assert (repeated.config.training.epochs, repeated.config.zoo.seed, repeated.folder.path) == (9, 3, tmp_path)


def test_what_differs_from_then_is_logged(finished: RunResult, tiny_plugins: Plugins, caplog) -> None:
    path = finished.dir / "run.json"
    record = json.loads(path.read_text())
    del record[json_files.SEAL]
    record["versions"]["torch"] = "1.0"
    json_files.write_sealed(path, {**record, "plugins": [*record["plugins"], "acme 2.1"]})
    with caplog.at_level(logging.WARNING):
        again(path, [], Reporter(), tiny_plugins)
    first, second = (entry.getMessage() for entry in caplog.records)
    assert "torch 1.0, here" in first and "plugin acme 2.1" in second


def test_nothing_differs_from_now(tiny_plugins: Plugins) -> None:
    assert differences(versions(), map(str, tiny_plugins.providers()), tiny_plugins) == []


@pytest.mark.parametrize("content", [None, b"", b"{}", b"[]", b'{"format": 2}', b'{"format": 1}'], ids=repr)
def test_a_damaged_record_is_refused(tiny_plugins: Plugins, tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(StoreError, match=r"run\.json.*give the config instead"):
        again(tmp_path / "run.json", [], Reporter(), tiny_plugins)


@pytest.mark.parametrize("arguments", [["run"], ["run", "x.toml", "--from", "run.json"]])
def test_a_config_and_a_record_exclude_each_other(capsys, arguments: list[str]) -> None:
    from paramtrans.cli.main import main

    assert main(arguments) == 2
    assert "either a config or --from" in capsys.readouterr().err
