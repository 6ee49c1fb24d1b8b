"""The command line before it does anything: quick, and helpful with names."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

import pytest
from rich.table import Table

from benchmarks import startup
from paramtrans.cli.main import main
from paramtrans.cli.show import show

HEAVY = {"torch", "numpy", "pydantic", "matplotlib", "safetensors", "rich"}


def test_help_and_plugins_come_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    took = startup.measure(repeats=5)
    least = {name: min(sample.wall for sample in samples) for name, samples in took.items()}
    with capsys.disabled():
        print("".join(f"\n{name}: {least[name] / least['python -c pass']:.1f}× python -c pass" for name in least))
    # Against what no start can do without, in the same run, and the least of several: tests run beside each other.
    assert all(seconds < 3 * least[startup.STANDS_ON] for seconds in least.values()), least


def test_help_imports_nothing_heavy() -> None:
    code = (
        f"import sys\nfrom paramtrans.cli.main import main\nmain(['--help'])\nsys.exit(str({HEAVY} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == "set()"


def test_every_face_is_lazy() -> None:
    """The package itself and each room of it is imported without what its modules need."""
    code = (
        "import pkgutil, sys, paramtrans\n"
        "rooms = [room.name for room in pkgutil.walk_packages(paramtrans.__path__, 'paramtrans.') if room.ispkg]\n"
        "for room in rooms: __import__(room)\n"
        f"sys.exit(str((len(rooms) >= 15, {HEAVY} & set(sys.modules))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == "(True, set())"


def test_the_package_is_the_command() -> None:
    command = [sys.executable, "-m", "paramtrans", "run", "no/such.toml"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "no/such.toml" in done.stderr


def completed(line: str) -> list[str]:
    """What bash is offered for the last word of a line."""
    words = line.split(" ")
    env = {"_PARAMTRANS_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    command = [sys.executable, "-m", "paramtrans.cli.main"]
    done = subprocess.run(command, env={**os.environ, **env}, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_a_shell_completes_commands_components_settings_and_files() -> None:
    assert completed("paramtrans ru") == ["plain,run"]
    assert completed("paramtrans plugins mixe") == ["plain,mixer"]
    assert completed("paramtrans run x.toml --set training.ba") == ["plain,training.batch_size"]
    assert completed("paramtrans run x.toml --set source.name=basic") == ["plain,source.name=basic_block"]
    assert completed("paramtrans run exa") == ["file,exa"]


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash here")
@pytest.mark.parametrize(
    ("words", "completed"),
    [
        (("run", "x.toml", "--set", "source.name", "=", "basic"), "basic_block"),
        (("run", "x.toml", "--set", "source.name", "=", ""), "attention basic_block"),
        (("run", "x.toml", "--set", "source.name", "="), "attention basic_block"),
        (("run", "x.toml", "--set", "zoo.tr"), "zoo.train"),
        (("plugins", "mixe"), "mixer"),
    ],
)
def test_bash_itself_completes_behind_an_equals_sign(tmp_path, words: tuple[str, ...], completed: str) -> None:
    program = tmp_path / "paramtrans"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m paramtrans.cli.main "$@"\n')
    program.chmod(0o755)
    script = (
        'eval "$(_PARAMTRANS_COMPLETE=bash_source paramtrans)"\n'
        f"COMP_WORDS=(paramtrans {' '.join(word or repr('') for word in words)})\n"
        f"COMP_CWORD={len(words)}\n"
        '_paramtrans_completion paramtrans\necho "${COMPREPLY[@]}"'
    )
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(["bash", "-c", script], env={**os.environ, "PATH": path}, capture_output=True, text=True)
    assert done.stdout.strip().startswith(completed), done.stderr


def test_completion_runs_no_plugin_file(tmp_path) -> None:
    file = tmp_path / "file.py"
    file.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    completed(f"paramtrans run x.toml --plugin {file} --set tra")
    assert not (tmp_path / "ran").exists()


def test_letters_that_a_terminal_does_not_know_are_no_error() -> None:
    command = [sys.executable, "-m", "paramtrans.cli.main", "diagnose", "--help"]
    env = {**os.environ, "PYTHONIOENCODING": "cp1252"}
    done = subprocess.run(command, env=env, capture_output=True, check=False)
    assert done.returncode == 0 and b"from each other). ?: rank" in done.stdout, done


def test_an_unknown_command_is_answered_by_the_nearest() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "paramtrans.cli.main", "plugin"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and 'did you mean "plugins"?' in done.stderr


def test_one_component_is_shown_with_its_options() -> None:
    command = [sys.executable, "-m", "paramtrans.cli.main", "plugins", "noise"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert re.search(r"scale +number +\S+", done.stdout)


def test_options_made_of_records_are_shown_with_what_is_in_these(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["plugins", "conv_chain"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"steps +array of Step +… +The convolutions", shown)
    assert re.search(r"Step\.kernel +integer +3 +Kernel side", shown)


def test_a_table_in_a_pipe_is_as_wide_as_its_numbers(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    table = Table("method", "a long heading of a column", "another")
    table.add_row("translated", "57.8 (32.3–83.4)", "36,560,384")
    show(table)
    assert "57.8 (32.3–83.4)" in (out := capsys.readouterr().out) and "36,560,384" in out
    assert "a long heading of a column" in out
