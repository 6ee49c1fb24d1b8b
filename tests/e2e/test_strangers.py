"""What the commands do with files of strangers, with outputs that stand somewhere, and with standard output."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from paramtrans import run
from paramtrans.cli.main import main
from paramtrans.config import Config
from paramtrans.plugins import Plugins
from paramtrans.storage import json_files


@pytest.fixture
def finished(tiny_config: Callable[..., Config], tiny_plugins: Plugins) -> Path:
    return run(tiny_config("zoo.train=3", "zoo.report=2", "training.epochs=1"), loaded=tiny_plugins).dir


def changed(path: Path, **changes: Any) -> Path:
    """A sealed document with changes, sealed again."""
    document = json.loads(path.read_bytes())
    json_files.write_sealed(
        path, {**{key: value for key, value in document.items() if key != json_files.SEAL}, **changes}
    )
    return path


def test_what_a_run_leaves_is_answered_from_in_words_whatever_was_done_to_it(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    record, evaluation = finished / "run.json", finished / "evaluation.json"

    def refused(*arguments: object) -> str:
        capsys.readouterr()
        assert main([str(argument) for argument in arguments]) == 2
        err = capsys.readouterr().err
        assert "Traceback" not in err and err.count("\n") <= 2
        return err

    assert main(["diagnose", str(finished), "--json"]) == 0
    report = finished / "report.html"
    assert "--force" in refused("compare", finished, "--html", report)
    assert main(["compare", str(finished), "--html", str(tmp_path / "page.html")]) == 0
    os.mkfifo(tmp_path / "pipe.html")
    assert "that would replace" in refused("compare", finished, "--html", tmp_path / "pipe.html", "--force")

    outside = {path: path.stat().st_mtime_ns for path in tmp_path.parent.iterdir() if path != tmp_path}
    for name in ("../climbed", str(tmp_path / "absolute"), "/", "..", "a/b", "\x1b[31mred", "x" * 300):
        err = refused("run", "--from", changed(record, name=name), "--quiet")
        assert "name" in err and "no name of a file or folder" in err and "\x1b" not in err
    assert {path: path.stat().st_mtime_ns for path in tmp_path.parent.iterdir() if path != tmp_path} == outside
    assert not list(tmp_path.glob("runs*")) and not (tmp_path / "absolute-again").exists()

    unsealed = {key: value for key, value in json.loads(record.read_bytes()).items() if key != json_files.SEAL}
    json_files.write_json(record, {**unsealed, "format": 1, "name": "run"})
    assert "checksum" in refused("run", "--from", record, "--quiet")
    json_files.write_sealed(record, {**unsealed, "name": "run"})

    whole = evaluation.read_bytes()
    evaluation.write_bytes(whole.replace(b'"mean": ', b'"mean": 1', 1))
    assert "was changed" in refused("diagnose", finished)
    assert "was changed" in refused("compare", finished)
    evaluation.unlink()
    assert "is missing" in refused("diagnose", finished)
    assert "is missing" in refused("compare", finished)


def test_an_answer_is_all_there_is_on_standard_output(tmp_path: Path, support: Path) -> None:
    plugin = tmp_path / "loud.py"
    plugin.write_text(
        "import os, subprocess\n"
        "from paramtrans import hookimpl\n"
        "print('at import')\n"
        "@hookimpl\n"
        "def paramtrans_run_started(run):\n"
        "    print('in a hook')\n"
        "    os.write(1, b'by descriptor')\n"
        "    subprocess.run(['echo', 'of a child'])\n"
    )
    settings = ["zoo.train=3", "run.device=cpu", "training.epochs=1", f"run.dir={tmp_path / 'run'}"]
    arguments = ["run", str(support / "tiny.toml"), "--json", "--quiet"]
    arguments += ["--plugin", str(support / "tiny_task.py"), "--plugin", str(plugin)]
    arguments += [part for setting in settings for part in ("--set", setting)]
    done = subprocess.run(
        [sys.executable, "-m", "paramtrans.cli.main", *arguments],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["run_dir"] == str(tmp_path / "run")
    assert all(said in done.stderr for said in ("at import", "in a hook", "by descriptor", "of a child"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no full device")
@pytest.mark.parametrize("arguments", [["plugins"], ["plugins", "--json"], ["--help"]])
def test_a_full_standard_output_is_named(arguments: list[str]) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "paramtrans.cli.main", *arguments],
            env=environment,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == 2 and "No space left" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [["plugins"], ["plugins", "--json"]])
def test_a_closed_standard_output_is_no_traceback(arguments: list[str]) -> None:
    command = f"exec {sys.executable} -m paramtrans.cli.main {' '.join(arguments)} >&-"
    done = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, text=True)
    assert done.returncode in (0, 2) and "Traceback" not in done.stderr
