"""`paramtrans` as other programs and people meet it: output, exit status, interruption, mistakes."""

from __future__ import annotations

import gzip
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from paramtrans import load_translator
from paramtrans.cli.main import _interrupted, main
from paramtrans.plugins import Plugins
from tests.support import warm

SUPPORT = Path(__file__).parents[1] / "support"
METHODS = {"source", "trained_target", "translated"}
RIVALS = {"zero_block", "random_init", "random_replacement", "greedy_replacement"}


@dataclass(frozen=True)
class Shell:
    """A folder and a cache in which commands are run."""

    path: Path

    def arguments(self, *more: str, run: str = "run") -> list[str]:
        fixed = ["run", str(SUPPORT / "tiny.toml"), "--plugin", str(SUPPORT / "tiny_task.py"), "--json"]
        return [*fixed, "--set", f"run.dir={self.path / run}", "--set", "run.device=cpu", *more]

    def start(self, *arguments: str, **env: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "paramtrans.cli.main", *arguments],
            env={**os.environ, "PARAMTRANS_CACHE": str(self.path / "cache"), **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.path,
        )

    def do(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "PARAMTRANS_CACHE": str(self.path / "cache")}
        return warm.python(["-m", "paramtrans.cli.main", *arguments], env, self.path, timeout=300)


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Shell, subprocess.CompletedProcess[str]]:
    """A whole run, and what it printed."""
    shell = Shell(tmp_path_factory.mktemp("undisturbed"))
    done = shell.do(*shell.arguments())
    assert done.returncode == 0, done.stderr
    return shell, done


@pytest.fixture
def inside(monkeypatch, capfd, fresh_plugins) -> Callable[..., tuple[str, str]]:
    """Runs a command in this process, which saves importing torch; returns standard output and standard error."""

    def run(shell: Shell, *arguments: str) -> tuple[str, str]:
        monkeypatch.setenv("PARAMTRANS_CACHE", str(shell.path / "cache"))
        fresh_plugins()
        capfd.readouterr()
        assert main(list(arguments)) == 0
        shown = capfd.readouterr()
        return shown.out, shown.err

    return run


def state(path: Path) -> dict[str, tuple[int, bytes]]:
    files = [file for file in path.rglob("*") if file.is_file() and file.name != ".lock"]
    return {str(file): (file.stat().st_mtime_ns, file.read_bytes()) for file in files}


def shards(shell: Shell) -> dict[str, bytes]:
    """The parameters of the whole zoo."""
    return {name: content for name, (_, content) in state(shell.path / "cache").items() if name.endswith("tensors")}


# The contract


def test_standard_output_is_exactly_one_json_object(undisturbed) -> None:
    shell, done = undisturbed
    answer = json.loads(done.stdout, parse_constant=lambda text: pytest.fail(f"{text} is no JSON"))
    assert done.stdout.count("\n") == 1
    assert answer.keys() >= {"run_dir", "seconds", "methods", "translator", "zoo"}
    assert answer["run_dir"] == str(shell.path / "run")
    assert answer["seconds"].keys() == {"zoo_step1", "zoo_step2", "training", "evaluation", "report"}
    assert all(0 < value < 600 for value in answer["seconds"].values())
    assert answer["translator"].keys() == {"name", "parameters", "flops", "target_bytes"}
    assert answer["translator"]["name"] == "mixer"
    learned = [tensor for tensor in load_translator(shell.path / "run").parameters() if tensor.requires_grad]
    assert answer["translator"]["parameters"] == sum(tensor.numel() for tensor in learned)
    assert answer["zoo"] == {"train": 6, "select": 2, "report": 3}


def test_all_methods_are_summarised_in_percent(undisturbed) -> None:
    shell, done = undisturbed
    methods = json.loads(done.stdout)["methods"]
    assert methods.keys() == METHODS | RIVALS
    evaluation = json.loads((shell.path / "run" / "evaluation.json").read_text())
    for name, summary in methods.items():
        assert summary.keys() >= {"mean", "ci95", "min", "max", "n", "gap_closed"}
        scores = evaluation["hosts"]["accuracies"][name]
        right = [score * evaluation["examples"] / 100 for score in scores]
        assert right == pytest.approx([round(count) for count in right], abs=1e-6)  # so many examples of them all
        assert (summary["n"], summary["min"], summary["max"]) == (3, min(scores), max(scores))
        assert summary["mean"] == pytest.approx(statistics.fmean(scores))
        low, high = summary["ci95"]
        assert abs((low + high) / 2 - summary["mean"]) < 1e-9


def test_progress_goes_to_standard_error_stage_by_stage(undisturbed) -> None:
    err = undisturbed[1].stderr
    places = [err.find(stage) for stage in ("step 1", "step 2", "step 3", "evaluation")]
    assert -1 not in places and places == sorted(places)
    assert "\x1b" not in err and "\r" not in err


def test_the_folder_holds_what_a_run_promises(undisturbed) -> None:
    shell, done = undisturbed
    folder = shell.path / "run"
    record = json.loads((folder / "run.json").read_text())
    assert record["status"] == "finished" and record["config"]["zoo"]["train"] == 6
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 4
    assert json.loads((folder / "evaluation.json").read_text())["methods"] == json.loads(done.stdout)["methods"]
    assert "<html" in (folder / "report.html").read_text()
    assert list((folder / "tensorboard").iterdir())
    assert {"translator.json", "translator.safetensors"} <= {path.name for path in (folder / "translator").iterdir()}
    assert not [path for path in folder.iterdir() if "checkpoint" in path.name]


def test_a_finished_run_answers_again_with_the_same_object_and_touches_nothing(undisturbed) -> None:
    shell, done = undisturbed
    before = state(shell.path)
    again = shell.do(*shell.arguments())
    assert (again.returncode, again.stdout) == (0, done.stdout)
    assert "step" not in again.stderr
    assert state(shell.path) == before


def test_starting_over_gives_identical_methods_and_hosts_in_another_process_and_in_this(undisturbed, inside) -> None:
    shell, done = undisturbed
    expected, before = json.loads(done.stdout)["methods"], shards(shell)
    fresh = shell.do(*shell.arguments("--fresh"))
    assert fresh.returncode == 0 and "step 1" in fresh.stderr
    assert json.loads(fresh.stdout)["methods"] == expected
    assert json.loads(inside(shell, *shell.arguments("--fresh"))[0])["methods"] == expected
    assert len(before) == 7 and shards(shell) == before


def test_another_seed_gives_other_hosts(shell, undisturbed, inside) -> None:
    other, _ = inside(shell, *shell.arguments("--set", "zoo.seed=1", "--set", "training.epochs=1"))
    assert json.loads(other)["methods"]["source"] != json.loads(undisturbed[1].stdout)["methods"]["source"]


def test_without_json_a_table_names_all_methods(undisturbed, inside) -> None:
    shell, _ = undisturbed
    out, err = inside(shell, *(argument for argument in shell.arguments("--quiet") if argument != "--json"))
    assert err == "" and "report.html" in out
    assert all(method.split("_")[0] in out.lower() for method in METHODS | RIVALS)


# Interruption


def interrupted(shell: Shell, when: Callable[[Shell], bool]) -> subprocess.CompletedProcess[str]:
    """Send SIGINT, as Ctrl-C does, as soon as `when` holds."""
    process = shell.start(*shell.arguments(), TINY_NAP="0.04")
    deadline = time.monotonic() + 300
    while not when(shell) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    assert process.poll() is None, "it ended before it was interrupted"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=300)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def shards_done(shell: Shell, below: str) -> int:
    return len(list((shell.path / "cache" / "zoos").glob(f"*/{below}/*.safetensors.json")))


MOMENTS: dict[str, Callable[[Shell], bool]] = {
    "step 1": lambda shell: shards_done(shell, "hosts") == 1,
    "step 2": lambda shell: shards_done(shell, "targets/*") == 1,
    "translator": lambda shell: any((shell.path / "run" / "checkpoint").glob("epoch-*.safetensors.json")),
}


@pytest.mark.parametrize(
    "when",
    [pytest.param(when, marks=pytest.mark.slow if name == "step 1" else (), id=name) for name, when in MOMENTS.items()],
)
def test_an_interrupted_run_exits_with_130_and_goes_on_to_the_same_methods(shell, undisturbed, inside, when) -> None:
    stopped = interrupted(shell, when)
    assert stopped.returncode == 130, stopped.stderr
    assert stopped.stdout == "" and "Traceback" not in stopped.stderr
    assert "run the same command again" in stopped.stderr
    assert json.loads((shell.path / "run" / "run.json").read_text())["status"] == "running"
    assert not [path for path in shell.path.rglob(".*") if path.is_file() and path.name != ".lock"]
    kept = shards(shell)
    resumed = json.loads(inside(shell, *shell.arguments())[0])
    assert resumed["methods"] == json.loads(undisturbed[1].stdout)["methods"]
    after = shards(shell)
    assert kept and {name: after[name] for name in kept} == kept
    assert sorted(after.values()) == sorted(shards(undisturbed[0]).values())


DROPPED = """
import sys, time
from paramtrans.cli import main
class Ends:
    def __del__(self):
        raise KeyboardInterrupt
def work(*arguments, **settings):
    Ends()
    time.sleep(30)
main.paramtrans_group.main = work
sys.exit(main.main([]))
"""


def test_an_interrupt_that_python_drops_comes_again() -> None:
    done = subprocess.run([sys.executable, "-c", DROPPED], capture_output=True, text=True, check=False)
    assert done.returncode == 130, done.stderr
    assert done.stderr.startswith("interrupted") and done.stderr.count("\n") == 1  # and nothing of the one dropped


LOST = """
import os, signal, sys
from paramtrans.cli import main
def work(*arguments, **settings):
    try:
        os.kill(os.getpid(), signal.SIGINT)
    except KeyboardInterrupt:
        pass
    raise ValueError("what compiled code made of it")
main.paramtrans_group.main = work
sys.exit(main.main([]))
"""


def test_only_a_run_is_said_to_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert _interrupted(["run", "x.toml"]) == _interrupted(["translate", "x.safetensors"]) == 130
    assert capsys.readouterr().err == "interrupted; run the same command again to go on\ninterrupted\n"


@pytest.mark.skipif(sys.platform == "win32", reason="SIGINT ends a process there")
def test_an_interrupt_that_compiled_code_turns_into_an_error_is_one() -> None:
    done = subprocess.run([sys.executable, "-c", LOST], capture_output=True, text=True, check=False)
    assert done.returncode == 130 and done.stderr == "interrupted\n", done.stderr


# Mistakes


@pytest.fixture
def mistake(tmp_path: Path, monkeypatch, capfd, fresh_plugins) -> Iterator[Callable[..., str]]:
    """Runs `paramtrans` in this process; it must end with 2, a message of at most two lines, and nothing on stdout."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, lines: int = 2) -> str:
        capfd.readouterr()
        fresh_plugins()
        status = main(list(arguments))
        shown = capfd.readouterr()
        assert status == 2, shown.err
        assert shown.out == "" and "Traceback" not in shown.err
        assert 0 < len(shown.err.splitlines()) <= lines, shown.err
        return shown.err

    return run


def tiny(tmp_path: Path, *settings: str) -> list[str]:
    return Shell(tmp_path).arguments(*(word for setting in settings for word in ("--set", setting)))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "no/such.toml"], ["no/such.toml", "give the path of a TOML file"]),
        (["run", "bad.toml"], ["bad.toml", "not valid TOML"]),
        (["run"], ["CONFIG"]),
        (["run", "x.toml", "--no-such-option"], ["--no-such-option"]),
        (["rum"], ["rum"]),
    ],
)
def test_a_command_line_that_makes_no_sense_is_a_mistake(tmp_path: Path, mistake, arguments, words) -> None:
    (tmp_path / "bad.toml").write_text("[task\n")
    error = mistake(*arguments, lines=4)
    assert all(word in error for word in words)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["translator.name=mixr"], ["tiny.toml: translator.name", 'did you mean "mixer"']),
        (["target.hiden=3"], ["tiny.toml: target.hiden", 'did you mean "hidden"']),
        (["zoo.train=many"], ["tiny.toml: zoo.train", "many"]),
        (["zoo.train"], ["--set zoo.train", "a.b=value"]),
        (["target.channels=8"], ["tiny.toml: target", "8", "4"]),
        (["source.channels=2"], ["tiny.toml: source", "2", "4"]),
        (["source.channels=2", "target.channels=8"], ["source: ", "target: "]),
        (["objectives=['mse']", "zoo.pairs=0"], ["tiny.toml: zoo.pairs", "mse"]),
        (["run.device=abacus"], ["run.device", "abacus"]),
        (["run.dir=file/run"], ["file/run", "cannot be written", "run.dir"]),
        (["run.dir=file"], ["file: cannot be written", "run.dir"]),
        (["run.cache=file/cache"], ["file/cache"]),
        (["run.cache=file"], ["file"]),
    ],
    ids=str,
)
def test_a_mistake_in_a_config_is_told_in_a_line_or_two(tmp_path: Path, mistake, settings, words) -> None:
    (tmp_path / "file").touch()
    error = mistake(*tiny(tmp_path, *settings), lines=4 if "mixr" in settings[0] else 2)
    assert all(word in error for word in words), error
    assert not (tmp_path / "run" / "run.json").exists()


def test_shapes_that_do_not_fit_are_told_with_the_config_file(tmp_path: Path, mistake) -> None:
    error = mistake(*tiny(tmp_path, "target.channels=8"))
    assert str(SUPPORT / "tiny.toml") in error


def test_a_run_folder_of_another_config_is_a_mistake_and_stays_as_it_was(undisturbed, mistake) -> None:
    shell, _ = undisturbed
    before = state(shell.path / "run")
    error = mistake(*shell.arguments("--set", "training.lr=0.5"))
    assert "training.lr" in error and "--fresh" in error and str(shell.path / "run") in error
    assert state(shell.path / "run") == before


def test_a_folder_another_process_works_in_is_a_mistake(tmp_path: Path, mistake) -> None:
    from paramtrans.runs.folder import RunFolder

    with RunFolder(tmp_path / "run", {}).locked():
        assert "another process" in mistake(*tiny(tmp_path))


def test_mistakes_are_mistakes_in_a_process_of_its_own_too(shell: Shell) -> None:
    done = shell.do("run", "no/such.toml", "--json")
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1 and "no/such.toml" in done.stderr


def test_a_defect_is_no_mistake_of_the_user(tmp_path: Path) -> None:
    """A plugin's own crash inside a run keeps its traceback, and ends with 1."""
    crash = (SUPPORT / "tiny_task.py").read_text().replace("def prepare(self", "def prepare(self, *, oops")
    (tmp_path / "crash.py").write_text(crash)
    shell = Shell(tmp_path)
    arguments = [str(tmp_path / "crash.py") if word.endswith("tiny_task.py") else word for word in shell.arguments()]
    done = shell.do(*arguments)
    assert done.returncode == 1
    assert "Traceback" in done.stderr and "prepare" in done.stderr and done.stdout == ""


def test_debug_shows_the_traceback_of_a_mistake_which_stays_a_mistake(capfd) -> None:
    assert main(["--debug", "run", "no/such.toml"]) == 2
    error = capfd.readouterr().err
    assert "Traceback" in error and "ConfigError" in error and "no/such.toml" in error


def test_a_damaged_file_of_the_users_is_a_mistake_that_names_it(tmp_path: Path, mistake) -> None:
    raw, name = unpack_mnist(tmp_path / "mine"), "t10k-labels-idx1-ubyte"
    content = bytearray((raw / name).read_bytes())
    content[100] ^= 1
    (raw / name).write_bytes(content)
    before = {path.name: path.stat().st_mtime_ns for path in raw.iterdir()}
    config = tmp_path / "x.toml"
    config.write_text((SUPPORT / "tiny.toml").read_text().replace('name = "tiny"', 'name = "mnist"'))
    root = f"task.root={tmp_path / 'mine'}"
    error = mistake("run", str(config), "--json", "--set", f"run.dir={tmp_path / 'run'}", "--set", root)
    assert str(raw / name) in error and "task.root" in error
    assert {path.name: path.stat().st_mtime_ns for path in raw.iterdir()} == before


def unpack_mnist(root: Path) -> Path:
    from paramtrans_mnist import shipped

    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    data = Path(shipped.__file__).parent / "data"
    for name in shipped.MD5:
        (raw / name).write_bytes(gzip.decompress((data / f"{name}.gz").read_bytes()))
    return raw


# Help


def commands() -> list[str]:
    loaded = Plugins()
    loaded.load_entry_points()
    return [entry.name for entry in loaded.registry().of_kind("command")]


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["--version"], *([name, "--help"] for name in commands())])
def test_help_is_no_mistake(arguments: list[str], capsys) -> None:
    assert main(arguments) == 0
    shown = capsys.readouterr()
    assert shown.out and shown.err == ""


def test_help_lists_every_command(capsys) -> None:
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in commands())
