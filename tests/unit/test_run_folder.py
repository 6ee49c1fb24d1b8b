"""A run's folder: one config, one process, and finished work that is not done again."""

from __future__ import annotations

import copy
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from paramtrans import run
from paramtrans.api.records import RUN_FORMAT, Evaluation
from paramtrans.errors import StoreError
from paramtrans.runs.folder import RunFolder, read_finished, read_record
from paramtrans.storage import files, json_files, sealed_params

CONFIG: dict[str, Any] = {
    "task": {"name": "tiny"},
    "zoo": {"train": 3, "step1": {"lr": 0.1}},
    "objectives": [{"name": "mse"}],
    "run": {"dir": "a"},
    "executor": {"name": "local"},
}


def folder(path: Path, **changes: Any) -> RunFolder:
    return RunFolder(path, {**CONFIG, **changes})


EVALUATION = json.loads((Path(__file__).parents[1] / "golden" / "run" / "evaluation.json").read_text())


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    path = tmp_path / "run"
    path.mkdir()
    run_folder_ = folder(path)
    run_folder_.seconds = {"training": 1.5}
    json_files.write_json(run_folder_.file("evaluation.json"), EVALUATION)
    run_folder_.write_record("finished", ["paramtrans 0.1.0"])
    return path


def without_seal(document: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in document.items() if key != json_files.SEAL}


def refused(path: Path, **changes: Any) -> str:
    with pytest.raises(StoreError) as caught:
        folder(path, **changes).resume()
    message = str(caught.value)
    assert message.startswith(str(path)) and "\n" not in message
    assert "--fresh" in message
    return message


def test_an_empty_folder_has_nothing_to_resume(tmp_path: Path) -> None:
    assert folder(tmp_path).resume() is None


def test_a_finished_run_gives_its_evaluation_and_its_times(finished: Path) -> None:
    opened = folder(finished)
    assert opened.resume().document() == EVALUATION
    assert opened.seconds == {"training": 1.5}


def test_an_unfinished_run_gives_its_times_and_start_alone(finished: Path) -> None:
    first = folder(finished)
    first.started, first.seconds = "2020-01-01T00:00:00+00:00", {"zoo_step1": 2.0}
    first.write_record("running", [])
    again = folder(finished)
    assert again.resume() is None
    assert (again.seconds, again.started) == ({"zoo_step1": 2.0}, "2020-01-01T00:00:00+00:00")


@pytest.mark.parametrize(
    ("changes", "different"),
    [
        ({"zoo": {"train": 4, "step1": {"lr": 0.1}}}, "zoo.train"),
        ({"zoo": {"train": 3, "step1": {"lr": 0.2}}}, "zoo.step1.lr"),
        ({"zoo": {"train": 3, "step1": {"lr": 0.1, "momentum": 0.5}}}, "zoo.step1.momentum"),
        ({"zoo": {"train": 4, "step1": {"lr": 0.2}}}, "zoo.step1.lr, zoo.train"),
        ({"objectives": [{"name": "mse"}, {"name": "mse"}]}, "objectives"),
        ({"task": {"name": "other"}}, "task.name"),
        ({"extra": 1}, "extra"),
    ],
)
def test_a_run_of_another_config_is_refused_naming_what_differs(finished: Path, changes, different: str) -> None:
    assert f"(different: {different})" in refused(finished, **changes)


@pytest.mark.parametrize("changes", [{"run": {"dir": "b"}}, {"executor": {"name": "ray"}}])
def test_where_a_run_is_made_does_not_matter(finished: Path, changes: dict[str, Any]) -> None:
    assert folder(finished, **changes).resume().document() == EVALUATION


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"3", b"null", b'"x"', b"{}", b"\xff", b'{"format": 1}', b"[" * 100_000],
)
def test_a_damaged_record_is_refused_with_what_to_do(finished: Path, content: bytes) -> None:
    (finished / "run.json").write_bytes(content)
    refused(finished)


@pytest.mark.parametrize(
    "edit",
    [
        {"config": 3},
        {"config": None},
        {"seconds": None},
        {"seconds": [1]},
        {"status": "done"},
        {"machine": {"cores": "2"}},
    ],
)
def test_a_record_with_wrong_parts_is_refused_with_what_to_do(finished: Path, edit: dict[str, Any]) -> None:
    record = json.loads((finished / "run.json").read_text())
    json_files.write_sealed(finished / "run.json", {**without_seal(record), **edit})
    refused(finished)


@pytest.mark.parametrize("version", [RUN_FORMAT + 1, 0, "1", None])
def test_an_unknown_format_is_refused_with_both_versions(finished: Path, version: Any) -> None:
    record = json.loads((finished / "run.json").read_text())
    json_files.write_json(finished / "run.json", {**record, "format": version})
    message = refused(finished)
    assert f"format {version!r}" in message and f"reads {RUN_FORMAT}" in message


@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b"\xff", b"{}"], ids=repr)
def test_a_finished_run_whose_evaluation_is_missing_or_damaged_is_never_answered_from(
    finished: Path, content: bytes | None
) -> None:
    path = finished / "evaluation.json"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    try:
        assert folder(finished).resume() is None  # evaluated again
    except StoreError as error:
        assert str(path) in str(error) and "--fresh" in str(error)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("methods", "translated", "mean"), "27"),
        (("methods", "translated", "n"), True),
        (("hosts", "accuracies", "source"), [[1.0]]),
        (("blocks", "target"), {"parameters": 3}),
        (("break_even", "zoo_seconds"), None),
        (("training",), 4),
    ],
)
def test_a_finished_run_whose_evaluation_says_something_else_is_refused_with_the_place(
    finished: Path, path: tuple[str, ...], value: Any
) -> None:
    document = copy.deepcopy(EVALUATION)
    place = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    json_files.write_json(finished / "evaluation.json", document)
    folder(finished).write_record("finished", [])
    message = refused(finished)
    assert f"evaluation.json: {'.'.join(path)}" in message
    with pytest.raises(StoreError, match=r"evaluation\.json: .*give the folder of a finished run"):
        read_finished(finished)


def test_what_later_versions_add_to_an_evaluation_is_kept(finished: Path) -> None:
    later = copy.deepcopy(EVALUATION) | {"further": [1]}
    later["methods"]["translated"]["further"] = 2
    json_files.write_json(finished / "evaluation.json", later)
    folder(finished).write_record("finished", [])
    assert folder(finished).resume().document() == later


def test_numbers_that_are_not_finite_are_null_in_the_file_and_none_to_the_reader(
    finished: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lost = copy.deepcopy(EVALUATION)
    lost["methods"]["translated"] |= {"mean": math.nan, "ci95": [math.nan, math.inf]}
    written = folder(finished).write_evaluation(Evaluation.model_validate(lost))
    assert written.methods["translated"].mean is None and written.methods["translated"].ci95 == [None, None]
    assert json.loads((finished / "evaluation.json").read_text())["methods"]["translated"]["mean"] is None
    assert "null for 3 numbers that are not finite" in caplog.text


def test_what_is_read_of_a_record_is_what_was_written(finished: Path) -> None:
    read = read_record(finished / "run.json", "look", sealed=True).document()
    assert read == without_seal(json.loads((finished / "run.json").read_text()))
    assert read["machine"].keys() == {"device", "processor", "cores"}


def test_a_plugin_whose_path_is_no_text_is_recorded(finished: Path) -> None:
    folder(finished).write_record("running", ["a\udcff.py", "paramtrans 0.1.0"])
    assert read_record(finished / "run.json", "look").plugins == ["a\\udcff.py", "paramtrans 0.1.0"]


def test_the_record_says_what_was_run_and_with_what(finished: Path) -> None:
    record = json.loads((finished / "run.json").read_text())
    assert record["config"] == CONFIG
    assert record["format"] == RUN_FORMAT and record["status"] == "finished"
    assert {"python", "paramtrans", "torch"} <= record["versions"].keys()
    assert record["plugins"] == ["paramtrans 0.1.0"]


@pytest.mark.parametrize(
    "edit", [{"status": "running"}, {"started": "x"}, {"seconds": {"training": 9.0}}, {"extra": 1}]
)
def test_an_edited_record_is_refused_though_it_is_well_formed(finished: Path, edit: dict[str, Any]) -> None:
    record = json.loads((finished / "run.json").read_text())
    json_files.write_json(finished / "run.json", {**record, **edit})
    assert "checksum" in refused(finished)


def test_a_record_of_the_first_format_has_no_checksum_and_is_read(finished: Path) -> None:
    record = without_seal(json.loads((finished / "run.json").read_text()))
    json_files.write_json(finished / "run.json", {**record, "format": 1, "files": {}})
    assert folder(finished).resume().document() == EVALUATION


def test_an_edited_evaluation_is_never_answered_from(finished: Path) -> None:
    json_files.write_json(finished / "evaluation.json", {**EVALUATION, "methods": {"translated": {"mean": 100.0}}})
    assert "evaluation.json: was changed" in refused(finished)


@pytest.mark.parametrize("damage", ["change", "remove"])
@pytest.mark.parametrize("name", ["metrics.jsonl", "report.html", "translator/translator.json", "tensorboard/events"])
def test_a_result_that_was_damaged_is_named_and_the_run_answers_without_it(finished, caplog, name, damage) -> None:
    opened = folder(finished)
    files.write_bytes(opened.file(name), b"content")
    opened.write_record("finished", [])
    assert folder(finished).resume().document() == EVALUATION and not caplog.records
    opened.file(name).write_bytes(b"contend") if damage == "change" else opened.file(name).unlink()
    assert folder(finished).resume().document() == EVALUATION
    [warning] = caplog.records
    assert str(opened.file(name)) in warning.getMessage()


@pytest.mark.parametrize("name", ["translator", "tensorboard", "checkpoint", "evaluation.json"])
def test_files_of_others_are_never_taken_for_a_runs(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(StoreError, match=rf"holds {name}, but no run\.json.*run\.dir"), folder(tmp_path).locked():
        pass
    assert (tmp_path / name).is_dir()


@pytest.mark.parametrize("name", ["translator", "tensorboard", "checkpoint", "run.json", "report.html", ".lock"])
def test_nothing_is_written_through_a_link(finished: Path, tmp_path: Path, name: str) -> None:
    outside = tmp_path / "outside"
    outside.write_text("mine")
    (finished / name).unlink(missing_ok=True)
    (finished / name).symlink_to(outside)
    with pytest.raises(StoreError, match="symbolic link") as caught, folder(finished).locked():
        pass
    assert str(finished / name) in str(caught.value) and outside.read_text() == "mine"


@pytest.mark.skipif(not files.OPEN.is_dir(), reason="no /proc/self/fd")
@pytest.mark.parametrize("name", ["translator", "checkpoint"])
def test_a_link_that_is_swapped_in_later_is_not_followed(finished: Path, tmp_path: Path, name: str) -> None:
    outside, opened = tmp_path / "outside", folder(finished)
    outside.mkdir()
    with opened.locked():
        files.remove(finished / name)
        files.write_bytes(finished / name / "first", b"1")
        assert (finished / name / "first").read_bytes() == b"1"
        files.remove(finished / name)
        (finished / name).symlink_to(outside)
        with pytest.raises(StoreError, match="cannot be written"):
            files.write_bytes(finished / name / "weights.safetensors", b"2")
    assert not list(outside.iterdir())
    files.write_bytes(finished / name / "weights.safetensors", b"2")  # elsewhere, links are a user's own
    assert [path.name for path in outside.iterdir()] == ["weights.safetensors"]


def test_clearing_leaves_the_files_of_others(finished: Path) -> None:
    opened = folder(finished)
    sealed_params.save_params(opened.checkpoint / "epoch-0000001.safetensors", {}, {})
    (finished / "notes.txt").write_text("mine")
    opened.clear()
    assert [path.name for path in finished.iterdir()] == ["notes.txt"]
    opened.clear()


def test_metrics_are_one_json_line_an_epoch(tmp_path: Path) -> None:
    folder(tmp_path).write_metrics([{"loss": 0.5}, {"loss": 0.25, "select": 80.0}])
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.25, "select": 80}]


@pytest.mark.thorough
def test_a_folder_is_worked_in_by_one_process_at_a_time(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from paramtrans.runs.folder import RunFolder\n"
        "with RunFolder(Path(sys.argv[1]), {}).locked():\n"
        "    print('locked', flush=True); sys.stdin.read()\n"
    )
    path = tmp_path / "run"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code, str(path)], text=True, env=dict(os.environ), **pipes) as other:
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(StoreError, match="another process works on this run") as caught, folder(path).locked():
            pass
        assert str(caught.value).startswith(str(path)) and "run.dir" in str(caught.value)
        other.stdin.close()
        assert other.wait(300) == 0
    with folder(path).locked():
        pass


def test_a_lock_is_released_by_an_exception(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), folder(tmp_path).locked():
        raise KeyboardInterrupt
    with folder(tmp_path).locked():
        pass


def test_a_place_that_cannot_be_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(StoreError, match=r"cannot be written.*run\.dir") as caught, folder(path).locked():
            pass
        assert str(caught.value).startswith(str(path))


# Whole runs


def state(path: Path) -> dict[str, tuple[int, bytes]]:
    files = [file for file in path.rglob("*") if file.is_file() and file.name != ".lock"]
    return {str(file): (file.stat().st_mtime_ns, file.read_bytes()) for file in files}


@pytest.mark.thorough
def test_a_finished_run_answers_without_touching_a_file(tiny_config, tiny_plugins, tmp_path: Path, monkeypatch) -> None:
    first = run(tiny_config(), loaded=tiny_plugins)
    before = state(tmp_path)
    monkeypatch.setattr("paramtrans_executors.local.do_job", None)
    again = run(tiny_config(), loaded=tiny_plugins)
    assert again.as_dict() == first.as_dict()
    assert state(tmp_path) == before
    with pytest.raises(StoreError, match=r"different: training\.epochs"):
        run(tiny_config("training.epochs=5"), loaded=tiny_plugins)
    assert state(tmp_path) == before
    # As above, in the words of a stranger: nothing is left that only a run in progress needs.
    assert not list((tmp_path / "run").glob("checkpoint*"))
