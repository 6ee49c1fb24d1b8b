"""Sweeps: how a config is laid together and expanded, and that a sweep's runs are ordinary, resumable runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from paramtrans import config
from paramtrans.cli.main import main
from paramtrans.config import merge
from paramtrans.errors import ConfigError, TrainingError
from paramtrans.plugins import Plugins
from paramtrans.runs.sweep import Sweep, SweepResult, expand
from paramtrans.training.trainer import Trainer
from paramtrans.utils.progress import Reporter
from paramtrans.zoo import Zoo, host_training

pytestmark = pytest.mark.pipeline

TINY = Path(__file__).parents[1] / "support" / "tiny.toml"
SWEEP = f"""
extends = "{TINY}"
run.device = "cpu"
scale = "short"

[sweep]
over = {{ translator.dropout = [0.0, 0.1] }}
[sweep.cases.mixer]
[sweep.cases.mlp]
translator = {{ name = "mlp", width = 8 }}

[scales.short]
training.epochs = 2
[scales.long]
training.epochs = 3
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "both.toml").write_text(SWEEP)
    return tmp_path / "both.toml"


def members(text: str, *settings: str, tmp_path: Path) -> dict[str, dict[str, Any]]:
    (tmp_path / "x.toml").write_text(text)
    document = merge.settle(merge.read(tmp_path / "x.toml"), settings, "x.toml")
    return {member.name: member.document for member in expand(document, settings, "x.toml")}


# Layers


def test_a_file_lies_over_the_one_it_extends(tmp_path: Path) -> None:
    (tmp_path / "base.toml").write_text('a = 1\nb = {name = "one", x = 1}\nc = {x = 1}\nd = [1, 2]')
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "top.toml").write_text('extends = "../base.toml"\nb = {name = "two"}\nc = {y = 2}\nd = [3]')
    content = merge.read(tmp_path / "sub" / "top.toml")
    assert content == {"a": 1, "b": {"name": "two"}, "c": {"x": 1, "y": 2}, "d": [3]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('extends = "x.toml"', "x.toml: extends: more than 10 files extend one another"),
        ("extends = 3", "x.toml: extends: no path"),
        ('extends = "absent.toml"', "absent.toml: No such file"),
    ],
)
def test_what_cannot_be_extended_is_told(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "x.toml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        merge.read(tmp_path / "x.toml")


def test_a_scale_lies_over_the_rest_and_settings_over_both() -> None:
    document = {"scale": "a", "x": {"n": 0, "m": 0}, "scales": {"a": {"x": {"n": 1}}, "b": {"x": {"n": 2}}}}
    assert merge.settle(document, [], "x") == {"x": {"n": 1, "m": 0}}
    assert merge.settle(document, ["scale=b"], "x") == {"x": {"n": 2, "m": 0}}
    assert merge.settle(document, ["scale=b", "x.n=3"], "x") == {"x": {"n": 3, "m": 0}}


def test_an_unknown_scale_is_told_with_the_near_one(path: Path) -> None:
    with pytest.raises(ConfigError, match=r'both.toml: scale: unknown scale \'lang\'; did you mean "long"\?'):
        config.load(path, Plugins().registry(), ["scale=lang"])


# Expansion


def test_cases_are_combined_with_all_lists_in_order(tmp_path: Path) -> None:
    text = "a = 0\nb = 0\n[sweep]\nover = {a = [1, 2], b = [3, 4]}\ncases = {x = {}, y = {c = {d = 5}}}"
    expanded = members(text, tmp_path=tmp_path)
    assert list(expanded) == ["x-1-3", "x-1-4", "x-2-3", "x-2-4", "y-1-3", "y-1-4", "y-2-3", "y-2-4"]
    assert expanded["x-2-3"] == {"a": 2, "b": 3} and expanded["y-1-4"] == {"a": 1, "b": 4, "c": {"d": 5}}


def test_quoted_paths_components_and_names_that_are_taken(tmp_path: Path) -> None:
    text = '[sweep.over]\n"t.x" = [{name = "mlp"}, {name = "mlp", w = 1}, "a/../b"]'
    expanded = members(text, tmp_path=tmp_path)
    assert list(expanded) == ["mlp", "mlp-2", "a_.._b"]
    assert expanded["mlp-2"] == {"t": {"x": {"name": "mlp", "w": 1}}}


def test_settings_win_over_cases_but_not_over_what_is_swept(tmp_path: Path) -> None:
    text = "[sweep]\nover = {a = [1, 2]}\ncases = {x = {b = 1}}"
    assert members(text, "b=2", tmp_path=tmp_path)["x-1"] == {"a": 1, "b": 2}
    assert list(members(text, "sweep.over.a=[7]", tmp_path=tmp_path)) == ["x-7"]
    with pytest.raises(ConfigError, match=r"--set a=3: the sweep runs over it; set sweep\.over\.a"):
        members(text, "a=3", tmp_path=tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[sweep]\nover = {a = 1}", r"x.toml: sweep.over.a: expected a list of values, not '1'"),
        ("[sweep]\nover = {a = []}", r"x.toml: sweep.over.a: expected a list of values"),
        ("[sweep]\novr = {a = [1]}", r'x.toml: sweep.ovr: unknown option; did you mean "over"\?'),
        ('[sweep]\nfigure = "pie"', r"x.toml: sweep.figure: .*accuracies"),
        ("a = 1\n[sweep]\nover = {a.b = [1]}", r"x.toml: sweep.over.a.b: there is nothing below the value 1"),
        (f"[sweep]\nover = {{a = {list(range(1001))}}}", r"x.toml: sweep: more than 1000 runs"),
    ],
)
def test_mistakes_in_a_sweep_are_told(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        members(text, tmp_path=tmp_path)


def test_what_is_wrong_with_every_run_is_told_once_and_all_at_once(path: Path, tiny_plugins: Plugins) -> None:
    settings = ["zoo.trian=3", 'sweep.cases.mlp.translator.widht="8"']
    with pytest.raises(ConfigError) as caught:
        Sweep(path, settings, Reporter(), tiny_plugins)
    assert [problem.removeprefix(str(path)) for problem in caught.value.problems] == [
        ' [mixer-0.0]: zoo.trian: unknown option; did you mean "train"?',
        ' [mlp-0.0]: translator.widht: unknown option; did you mean "width"?',
    ]


def test_a_sweep_is_no_config_of_one_run(path: Path, tiny_plugins: Plugins) -> None:
    with pytest.raises(ConfigError, match=r"sweep: .*several runs"):
        config.load(path, tiny_plugins.registry())


# Running


def sweep(path: Path, loaded: Plugins, *settings: str) -> SweepResult:
    return Sweep(path, [f"run.dir={path.parent / 'out'}", *settings], Reporter(), loaded).do()


def test_it_ends_in_one_table_and_one_figure_and_shares_a_zoo(
    path: Path, tiny_plugins: Plugins, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = sweep(path, tiny_plugins)
    written = json.loads((tmp_path / "out" / "sweep.json").read_text())
    assert [run["name"] for run in written["runs"]] == ["mixer-0.0", "mixer-0.1", "mlp-0.0", "mlp-0.1"]
    assert written["runs"][1]["values"] == {"case": "mixer", "translator.dropout": 0.1}
    assert [run["translator"]["name"] for run in written["runs"]] == ["mixer", "mixer", "mlp", "mlp"]
    assert all(run["training"]["epochs"] == 2 and run["translator"]["flops"] > 0 for run in written["runs"])
    assert len(list((tmp_path / "cache" / "zoos").iterdir())) == 1
    assert [column.header for column in result.table().columns][:3] == ["case", "translator.dropout", "translated"]
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("<svg") == 1 and 'href="mlp-0.1/report.html"' in page
    monkeypatch.setattr(Zoo, "missing", lambda self, step, outdated=0: pytest.fail("a finished sweep trains nothing"))
    assert sweep(path, tiny_plugins).rows == result.rows


@pytest.mark.parametrize("figure", ["loss", "training"])
def test_curves_of_all_runs(path: Path, tiny_plugins: Plugins, tmp_path: Path, figure: str) -> None:
    sweep(path, tiny_plugins, f"sweep.figure={figure}", "sweep.cases={mlp={translator={name='mlp'}}}")
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("<svg") == 1 and "mlp-0.1" in page.split("<svg")[1]


def test_it_goes_on_where_it_was_interrupted(
    path: Path, tiny_plugins: Plugins, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[str] = []
    run = Trainer.run

    def counted(self: Trainer, *args: Any) -> Any:
        name = f"{self.builder.config.translator.name}-{self.builder.config.translator.options['dropout']}"
        if name == "mixer-0.1" and name not in trained:
            trained.append(name)
            raise TrainingError("interrupted")
        trained.append(name)
        return run(self, *args)

    monkeypatch.setattr(Trainer, "run", counted)
    with pytest.raises(TrainingError):
        sweep(path, tiny_plugins)
    assert len(json.loads((tmp_path / "out" / "sweep.json").read_text())["runs"]) == 1
    sweep(path, tiny_plugins)
    assert trained == ["mixer-0.0", "mixer-0.1", "mixer-0.1", "mlp-0.0", "mlp-0.1"]


@pytest.mark.slow
def test_starting_over_trains_the_shared_zoo_once(
    path: Path, tiny_plugins: Plugins, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep(path, tiny_plugins)
    shards: list[int] = []
    train = host_training.train_hosts
    monkeypatch.setattr(
        host_training, "train_hosts", lambda *args, **named: (shards.append(1), train(*args, **named))[1]
    )
    Sweep(path, [f"run.dir={path.parent / 'out'}"], Reporter(), tiny_plugins).do(fresh=True)
    assert len(shards) == 4  # two of training hosts, one for selection, one for the report


def test_the_plan_counts_a_shared_zoo_once(
    path: Path, tiny_plugins: Plugins, fresh_plugins: Callable[[], Plugins], capsys: Any, support: Path
) -> None:
    arguments = ["run", str(path), "--plugin", str(support / "tiny_task.py"), "--dry-run"]
    assert main([*arguments, "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["zoos"] == 1 and len(plan["runs"]) == 4
    assert [run["hosts"]["to_train"] for run in plan["runs"]] == [11, 0, 0, 0]
    assert [run["targets_to_train"] for run in plan["runs"]] == [9, 0, 0, 0]
    assert plan["runs"][0]["translator"]["parameters"] > 0
    assert not (path.parent / "runs").exists()
    assert main(arguments) == 0
    text = capsys.readouterr().out
    assert "4 runs, 1 zoo" in text and "11 still to train" in text and "run     mlp-0.1: mlp" in text


def test_a_file_of_hosts_stands_beside_the_sweep_that_names_it(path: Path, tiny_plugins: Plugins) -> None:
    sweep = Sweep(path, ["zoo.report_from=hosts.safetensors"], Reporter(), tiny_plugins)
    assert {run.config.zoo.report_from for run in sweep.runs} == {str(path.parent / "hosts.safetensors")}


def test_runs_without_a_translator_of_their_own_are_swept(tmp_path: Path, tiny_plugins: Plugins) -> None:
    (tmp_path / "alone.toml").write_text("""
        task = { name = "tiny", channels = 4 }
        source = { name = "basic_block", channels = 4 }
        target = { name = "conv", channels = 4, hidden = 2 }
        zoo = { train = 0, select = 0, report = 3, step1.steps = 2, step2.steps = 2 }
        evaluation = { methods = [{ label = "pruned", translator = "prune" }] }
        sweep = { columns = ["pruned", "random_init"], over = { zoo.seed = [0, 1] } }
        run.device = "cpu"
    """)
    results = Sweep(tmp_path / "alone.toml", [f"run.dir={tmp_path / 'out'}"], Reporter(), tiny_plugins).do()
    assert [row["methods"]["pruned"]["n"] for row in results.rows] == [3, 3]
    assert "Mean accuracy of each run, pruned" in (tmp_path / "out" / "report.html").read_text()
