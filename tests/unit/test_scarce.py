"""What is short, cut, written by hand or not finite is answered in words: open files, documents, numbers of a run."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from paramtrans import run
from paramtrans.cli.main import main
from paramtrans.errors import Damaged, StoreError
from paramtrans.plugins import Plugins
from paramtrans.report.sweep import history
from paramtrans.storage import files, json_files, outside


@pytest.fixture(params=[errno.EMFILE, errno.ENFILE])
def no_files_left(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that cannot be opened, nor one beside it."""
    (tmp_path / "x.json").write_text("{}")

    def fail(*_: Any, **__: Any) -> Any:
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(os, "open", fail)
    monkeypatch.setattr(Path, "open", fail)
    return tmp_path / "x.json"


@pytest.mark.parametrize("touch", [lambda path: files.write_bytes(path, b""), outside.content], ids=["write", "read"])
def test_too_many_open_files_are_named_with_the_limit_to_raise(
    touch: Callable[[Path], Any], no_files_left: Path
) -> None:
    with pytest.raises(StoreError, match=r"x\.json: cannot be .*open files.*; let processes open more files") as caught:
        touch(no_files_left)
    assert "free space" not in str(caught.value)


def test_too_many_open_files_in_a_command_are_a_line_and_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), "METADATA")

    monkeypatch.setattr("paramtrans.cli.main.paramtrans_group.main", fail)
    assert main(["plugins"]) == 2
    err = capsys.readouterr().err
    assert "METADATA" in err and "ulimit -n" in err and err.count("\n") == 1


def test_metrics_of_a_sweeps_run_that_were_cut_are_named(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"epoch": 1, "loss": 0.5}\n{"epoch": 2, "lo')
    with pytest.raises(Damaged, match=r"metrics\.jsonl: a line .*cut off or changed"):
        history(tmp_path)


@pytest.mark.parametrize("version", ["1", None, 0, 1.0, True])
def test_a_format_that_nothing_writes_is_no_reason_to_update(version: Any) -> None:
    with pytest.raises(StoreError) as caught:
        json_files.check_format(Path("x.json"), version, (1, 2)[1:])
    assert f"has format {version!r}," in str(caught.value) and "made by hand" in str(caught.value)
    with pytest.raises(StoreError, match="update paramtrans"):
        json_files.check_format(Path("x.json"), 3, (1, 2))


@pytest.mark.pipeline
def test_a_translator_that_diverges_leaves_no_nan_in_the_evaluation(
    tiny_config: Callable[..., Any], tiny_plugins: Plugins
) -> None:
    done = run(tiny_config("training.lr=1e9", "zoo.train=3", "zoo.report=2", "training.epochs=1"), loaded=tiny_plugins)
    assert not re.search(r"NaN|Infinity", (done.dir / "evaluation.json").read_text())
