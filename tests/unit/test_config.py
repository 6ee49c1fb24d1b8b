"""Configs: everything is checked before anything runs, and every mistake is told at once, with its place."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings, strategies as st
from pydantic import BaseModel

from paramtrans import config
from paramtrans.cli.main import main
from paramtrans.config import merge, schema
from paramtrans.errors import ConfigError
from paramtrans.plugins import Plugins
from paramtrans.plugins.registry import Registry
from paramtrans.runs.sweep import expand

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted(
    path
    for path in (ROOT / "examples").rglob("*.toml")
    if path.name != "pyproject.toml" and path.parent.name != "paper"
)
TINY = ROOT / "tests" / "support" / "tiny.toml"


@pytest.fixture(scope="module")
def registry() -> Registry:
    """First-party components; the task of the tiny config is replaced by mnist."""
    loaded = Plugins()
    loaded.load_entry_points()
    return loaded.registry()


def document() -> dict[str, Any]:
    content = tomllib.loads(TINY.read_text())
    content["task"] = {"name": "mnist", "channels": 4}
    return content


def changed(*settings: str) -> dict[str, Any]:
    return config.override(document(), settings)


def problems(registry: Registry, content: Any, where: str = "x.toml") -> list[str]:
    with pytest.raises(ConfigError) as caught:
        config.validate(content, registry, where)
    assert str(caught.value).splitlines() == [line for text in caught.value.problems for line in text.splitlines()]
    return list(caught.value.problems)


def problem_of(registry: Registry, *settings: str) -> str:
    """The only problem of the tiny config with these settings."""
    [problem] = problems(registry, changed(*settings))
    return problem


# Parts that must fit each other


STROKES = 'probes={name="strokes", count=8}'
METHODS = (
    f'evaluation.methods=[{{label="a", translator="matching", {STROKES}}}, {{label="b", then=["matching"], {STROKES}}}]'
)


def test_methods_are_resolved_with_their_defaults(registry) -> None:
    valid = config.validate(changed(METHODS), registry)
    first, second = valid.evaluation.methods
    assert first.translator.options["steps"] == 300 and first.probes.options["count"] == 8
    assert second.translator is None and second.then[0].options["lr"] is None
    assert config.validate(valid.model_dump(mode="json"), registry) == valid


def test_a_run_without_a_translator_of_its_own_needs_no_training(registry) -> None:
    content = document()
    for part in ("translator", "objectives", "augmenters", "training"):
        del content[part]
    del content["zoo"]["train"], content["zoo"]["select"]
    methods = f'evaluation.methods=[{{label="a", translator="matching", {STROKES}}}]'
    assert config.validate(config.override(content, [methods]), registry).zoo.train == 0
    [problem] = problems(registry, content)
    assert problem.startswith("x.toml: translator: required") and "evaluation.methods" in problem
    goes_on = f'evaluation.methods=[{{label="a", then=["matching"], {STROKES}}}]'
    [problem] = problems(registry, config.override(content, [goes_on]))
    assert problem.startswith("x.toml: evaluation.methods.0: has no translator to go on from")


def test_a_learned_translator_without_hosts_to_learn_from_names_all_that_is_missing(registry) -> None:
    content = changed("zoo.train=0", "zoo.select=0", "objectives=[]")
    del content["training"]
    assert problems(registry, content) == [
        f"x.toml: {path}: required, but not given; mixer learns"
        for path in ("zoo.train", "zoo.select", "objectives", "training")
    ]


@pytest.mark.parametrize(
    ("setting", "match"),
    [
        ('translator="matching"', r"translator: matching needs probes; move it"),
        (
            'evaluation.methods=[{label="a", translator="matching"}]',
            r"methods\.0\.probes: required, but not given; match",
        ),
        ('evaluation.methods=[{label="a", translator="mlp"}]', r"methods\.0\.translator: mlp learns"),
        ('evaluation.methods=[{label="a"}]', r"methods\.0: names no translator"),
        (f'evaluation.methods=[{{label="translated", then=["matching"], {STROKES}}}]', "translated is named twice, or"),
        (f'evaluation.methods=[{{label="zero_block", then=["matching"], {STROKES}}}]', "zero_block is named twice, or"),
        ('evaluation.baseline="refit"', r"evaluation\.baseline: refit is no method; known: source, trained_target"),
        (f'evaluation.methods=[{{labl="a", then=["matching"], {STROKES}}}]', 'did you mean "label"'),
        ('evaluation.methods=[{label="a", translator="matching", probes={name="stroke"}}]', 'did you mean "strokes"'),
        (f'evaluation.methods=[{{label="a", then=[{{name="matching", step=3}}], {STROKES}}}]', 'did you mean "steps"'),
    ],
)
def test_methods_that_cannot_be_are_told_with_their_place(registry, setting: str, match: str) -> None:
    assert any(re.search(match, problem) for problem in problems(registry, changed(setting)))


# Reading


def test_the_config_these_tests_change_is_sound(registry) -> None:
    assert config.validate(document(), registry).target.options["hidden"] == 2


def test_every_shipped_config_is_found() -> None:
    """One of each folder, as a pattern that finds nothing would leave nothing to test."""
    assert {"mnist_conv_to_attn", "mnist_conv_to_separable", "learned_conv"} <= {path.stem for path in EXAMPLES}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.relative_to(ROOT / "examples").as_posix())
def test_every_shipped_config_validates(fresh_plugins, path: Path) -> None:
    loaded = fresh_plugins()
    for plugin in sorted(path.parent.glob("*.py")):  # one-file plugins stand beside their configs
        loaded.load_file(plugin)
    where = str(path)
    settled = merge.settle(merge.read(path), (), where)
    documents = [member.document for member in expand(settled, (), where)] if "sweep" in settled else [settled]
    for content in documents:
        assert config.validate(content, loaded.registry(), where).zoo.report >= 2


@pytest.mark.parametrize("name", ["missing.toml", "folder", "below-a-file/x.toml"])
def test_a_config_that_is_not_there_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "below-a-file").touch()
    with pytest.raises(ConfigError) as caught:
        config.read(tmp_path / name)
    assert str(caught.value).startswith(str(tmp_path / name))
    assert "TOML" in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [b"[task", b"a = ", b"\xff\xfe", b"a = 1\na = 2\n", b"\x00", b"a=" + b"[" * 5000, b"a = " + b"9" * 5000],
    ids=["open table", "no value", "not utf-8", "twice", "nul", "deep nesting", "huge number"],
)
def test_what_is_no_toml_is_told_with_the_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="not valid TOML") as caught:
        config.read(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_a_huge_file_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "huge.toml"
    with path.open("wb") as file:
        file.truncate(10**12)  # sparse: reading it would take all memory
    with pytest.raises(ConfigError, match="larger than 100,000 bytes"):
        config.read(path)


def test_a_device_without_end_is_not_read_whole(registry, monkeypatch) -> None:
    """A device reports size 0, so its size alone does not protect; reading /dev/zero whole would take all memory."""

    def endless(path: Path, *args: Any, **options: Any) -> Any:
        raise AssertionError(f"{path} was read without a limit")

    monkeypatch.setattr(Path, "read_text", endless)
    monkeypatch.setattr(Path, "read_bytes", endless)
    with pytest.raises(ConfigError, match="/dev/zero"):
        config.load(Path("/dev/zero"), registry)


def test_an_empty_file_names_everything_required(registry, tmp_path: Path) -> None:
    path = tmp_path / "empty.toml"
    path.touch()
    with pytest.raises(ConfigError) as caught:
        config.load(path, registry)
    required = ["task", "source", "target", "zoo"]
    assert list(caught.value.problems) == [f"{path}: {name}: required, but not given" for name in required]


# Problems and their places


def test_all_mistakes_of_the_frame_are_told_at_once(registry) -> None:
    messages = problems(registry, changed("zoo.train=-1", "training.lrr=3", "zoo.step1.momentum=2", "run.device=7"))
    assert [problem.split(": ")[:2] for problem in messages] == [
        ["x.toml", "zoo.train"],
        ["x.toml", "zoo.step1.momentum"],
        ["x.toml", "training.lrr"],
        ["x.toml", "run.device"],
    ]


def test_all_mistakes_of_all_components_are_told_at_once(registry) -> None:
    settings = ("source.kernel=2", "target.hiden=3", "translator.name=mixr", "augmenters.0.scale=-1")
    messages = problems(registry, changed(*settings, "objectives.0.examples=0"))
    places = {problem.split(": ")[1] for problem in messages}
    assert places == {"source.kernel", "target.hiden", "translator.name", "augmenters.0.scale", "objectives.0.examples"}


def test_mistakes_of_the_frame_and_of_components_are_told_at_once(registry) -> None:
    messages = problems(registry, changed("zoo.train=-1", "translator.name=mixr", "target.hidden=-2"))
    assert {problem.split(": ")[1] for problem in messages} == {"zoo.train", "translator.name", "target.hidden"}


UNKNOWN_EVERYWHERE = {
    "report.task": 'report={task="nothing"}',
    "zoo.also.0": 'zoo.also=["nothing"]',
    "training.targets.0": 'training.targets=["nothing"]',
    "objectives.0": 'objectives=["nothing"]',
    "augmenters.0": 'augmenters=["nothing"]',
    "evaluation.rivals.0": 'evaluation.rivals=["nothing"]',
    "evaluation.methods.0.translator": 'evaluation.methods=[{label="a", translator="nothing"}]',
    "evaluation.methods.0.probes": 'evaluation.methods=[{label="a", translator="prune", probes="nothing"}]',
    "evaluation.methods.0.then.1": 'evaluation.methods=[{label="a", then=["matching", "nothing"]}]',
} | {place: f'{place}="nothing"' for place in ("task", "source", "target", "translator", "executor")}


@pytest.mark.parametrize(("place", "setting"), UNKNOWN_EVERYWHERE.items(), ids=UNKNOWN_EVERYWHERE)
def test_a_component_is_told_wherever_it_stands_beside_mistakes_of_the_frame(
    registry, place: str, setting: str
) -> None:
    kind = {"also": "task", "then": "translator"} | dict.fromkeys(("source", "target", "targets"), "block adapter")
    messages = problems(registry, changed(setting, "zoo.train=-1"))
    assert [problem.split(": ")[1] for problem in messages] == ["zoo.train", f"{place}.name"]
    last = next(word for word in reversed(place.split(".")) if not word.isdigit())
    assert f"unknown {kind.get(last, last.rstrip('s'))} " in messages[1]


def test_what_is_no_list_or_table_is_told_once_and_hides_no_other_mistake(registry) -> None:
    for setting in ("evaluation=3", "evaluation.methods=3", "evaluation.methods=[3]", "zoo.also=3", "report=3"):
        messages = problems(registry, changed(setting, "target.hiden=3"))
        assert "target.hiden" in {problem.split(": ")[1] for problem in messages}
    messages = problems(registry, changed('evaluation.methods=[{label="a", then=3}]', "target.hiden=3"))
    assert [problem.split(": ")[1] for problem in messages] == ["evaluation.methods.0.then", "target.hiden"]
    messages = problems(registry, changed("zoo.also=[3]", 'evaluation.rivals=["nothing"]'))
    assert [problem.split(": ")[1] for problem in messages] == ["zoo.also.0", "evaluation.rivals.0.name"]


@pytest.mark.parametrize(
    ("typed", "place", "meant"),
    [
        ("zooo", "zooo", "zoo"),
        ("zoo.tran", "zoo.tran", "train"),
        ("zoo.step1.batch_siz", "zoo.step1.batch_siz", "batch_size"),
        ("training.warmup_epoch", "training.warmup_epoch", "warmup_epochs"),
        ("evaluation.rival", "evaluation.rival", "rivals"),
        ("run.dirr", "run.dirr", "dir"),
        ("task.chanels", "task.chanels", "channels"),
        ("source.hiden", "source.hiden", "hidden"),
        ("target.kernal", "target.kernal", "kernel"),
        ("translator.layer", "translator.layer", "layers"),
        ("objectives.0.example", "objectives.0.example", "examples"),
        ("augmenters.0.scal", "augmenters.0.scal", "scale"),
    ],
)
def test_an_unknown_option_is_refused_with_its_place_and_a_near_name(registry, typed, place, meant) -> None:
    problem = problem_of(registry, f"{typed}=1")
    assert problem.startswith(f"x.toml: {place}: ") and f'"{meant}"' in problem


@pytest.mark.parametrize(("typed", "meant"), [("augmenters.0.onn", "on"), ("objectives.0.weigth", "weight")])
def test_a_near_name_is_also_sought_among_the_options_of_the_frame(registry, typed: str, meant: str) -> None:
    assert f'did you mean "{meant}"' in problem_of(registry, f"{typed}=1")


def test_an_option_like_no_other_is_answered_by_all_there_are(registry) -> None:
    assert problem_of(registry, "target.zzzzzz=1").endswith("unknown option; known: bias, channels, hidden, kernel")


def test_an_option_of_a_component_without_options_is_refused(registry) -> None:
    assert problem_of(registry, 'evaluation.rivals=[{name = "zero_block", seed = 1}]') == (
        "x.toml: evaluation.rivals.0.seed: unknown option; known: none"
    )


@pytest.mark.parametrize(
    ("setting", "place"),
    [
        ('zoo.train="many"', "zoo.train"),
        ("zoo.train=1.5", "zoo.train"),
        ("zoo.train=0", "zoo.train"),
        ("zoo.train=99999999999999999999", "zoo.train"),
        ("zoo.report=1", "zoo.report"),
        ("zoo=3", "zoo"),
        ("zoo=[]", "zoo"),
        ("zoo.step1=[1]", "zoo.step1"),
        ("zoo.step1.lr=nan", "zoo.step1.lr"),
        ("zoo.step1.lr=inf", "zoo.step1.lr"),
        ("zoo.step1.lr=0", "zoo.step1.lr"),
        ('zoo.step1.schedule="linear"', "zoo.step1.schedule"),
        ("zoo.step1.epochs=3", "zoo.step1"),
        ("zoo.seed=-1", "zoo.seed"),
        ("objectives=[]", "objectives"),
        ('objectives="functional"', "objectives"),
        ("objectives.0.weight=-1", "objectives.0.weight"),
        ('augmenters.0.on="everything"', "augmenters.0.on"),
        ("training.epochs=true", "training.epochs"),
        ("training.clip=0", "training.clip"),
        ("translator=5", "translator"),
        ("translator.name=5", "translator.name"),
        ("translator={}", "translator.name"),
        ("run.dir=5", "run.dir"),
        ('evaluation.trained_target="perhaps"', "evaluation.trained_target"),
        ('target.hidden="three"', "target.hidden"),
        ("target.channels=0", "target.channels"),
        ('translator.size="huge"', "translator.size"),
        ("translator.dropout=1", "translator.dropout"),
        ('source.read="nothing"', "source.read"),
        ("task.holdout=-5", "task.holdout"),
    ],
)
def test_a_wrong_value_is_told_with_its_place(registry, setting: str, place: str) -> None:
    problem = problem_of(registry, setting)
    assert problem.startswith(f"x.toml: {place}: ")
    assert "Error" not in problem and "pydantic" not in problem


@pytest.mark.parametrize("setting", ['zoo.train="many"', 'target.hidden="three"', 'training.schedule="linear"'])
def test_the_wrong_value_is_shown(registry, setting: str) -> None:
    assert setting.partition("=")[2].strip('"') in problem_of(registry, setting)


@pytest.mark.parametrize("setting", ['"\\u001b[31m\\n"=1', 'task.name="\\u001b[31m\\n"', 'zoo.train="\\u001b[31m"'])
def test_control_characters_never_reach_the_terminal(registry, setting: str) -> None:
    content = tomllib.loads(setting) if setting.startswith('"') else changed(setting)
    assert "\x1b" not in "".join(problems(registry, content))


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (["source.kernel=4"], "must be odd"),
        (["translator={name='conv', kernel=4}"], "must be odd"),
        (["translator={name='attention', width=10, heads=4}"], "width must be a multiple of heads"),
        (["translator={name='mixer', size='small', layers=3}"], "leave out size"),
        (["objectives.0={name='functional', features=0}"], "give one of them a share"),
        (["zoo.step1={lr=0.1}"], "give either steps or epochs"),
        (["zoo.step1={lr=0.1, steps=1, epochs=1}"], "give either steps or epochs"),
    ],
)
def test_values_that_do_not_go_together_are_told_by_the_components_own_words(registry, settings, reason) -> None:
    assert reason in problem_of(registry, *settings)


def test_an_unknown_component_is_told_with_its_place_and_what_there_is(registry) -> None:
    problem = problem_of(registry, "translator={name='mixr'}")
    assert problem.startswith('x.toml: translator.name: unknown translator "mixr"; did you mean "mixer"?\n')
    [available] = re.findall(r"^  available: (.*) \(paramtrans 0\.", problem, re.MULTILINE)
    assert {"attention", "conv", "mixer", "mlp"} <= set(available.split(", "))


@pytest.mark.parametrize(
    ("setting", "place"),
    [
        ('evaluation.rivals=["zero_block", "greedy"]', "evaluation.rivals.1.name"),
        ('executor="slurm"', "executor.name"),
        ('task={name="imagenet"}', "task.name"),
        ('objectives=["functional", "mze"]', "objectives.1.name"),
    ],
)
def test_unknown_names_in_lists_and_bare_strings_have_their_place(registry, setting: str, place: str) -> None:
    assert problem_of(registry, setting).startswith(f"x.toml: {place}: unknown ")


@pytest.mark.parametrize("content", [{}, [], None, 3, "text", {"task": None}, {1: 2}, {"zoo": {"step1": {}}}])
def test_what_is_no_config_at_all_is_a_config_error(registry, content: Any) -> None:
    assert problems(registry, content)


# --set


def test_set_replaces_one_value_and_leaves_the_document_alone() -> None:
    before = document()
    after = config.override(before, ["zoo.step1.lr=0.5", "target.hidden=3"])
    assert (after["zoo"]["step1"]["lr"], after["target"]["hidden"]) == (0.5, 3)
    assert before == document()
    assert {**after, "zoo": 0, "target": 0} == {**before, "zoo": 0, "target": 0}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("-2.5e-3", -0.0025),
        ("true", True),
        ('"3"', "3"),
        ("'a b'", "a b"),
        ("[1, 2]", [1, 2]),
        ('{name = "mlp", width = 3}', {"name": "mlp", "width": 3}),
        ("mixer", "mixer"),
        ("/tmp/a b=c", "/tmp/a b=c"),
        ("", ""),
        ("1.2.3", "1.2.3"),
        ("True", "True"),
        ("3 # three", 3),
        ("1\nother = 2", "1\nother = 2"),
        ("[" * 5000, "[" * 5000),
    ],
)
def test_set_takes_toml_and_anything_else_as_text(text: str, value: Any) -> None:
    assert config.override({}, [f"a.b={text}"]) == {"a": {"b": value}}


def test_set_reaches_into_lists() -> None:
    content = {"a": [{"b": 1}, {"b": 2}]}
    assert config.override(content, ["a.1.b=5"]) == {"a": [{"b": 1}, {"b": 5}]}
    assert config.override(content, ["a.0=7"]) == {"a": [7, {"b": 2}]}


def test_later_settings_win() -> None:
    assert config.override({}, ["a=1", "a=2", "b.c=1", "b={d=2}"]) == {"a": 2, "b": {"d": 2}}


@pytest.mark.parametrize(
    "setting",
    [
        "",
        "a",
        "=3",
        "a..b=1",
        ".a=1",
        "a.=1",
        "list.2=1",
        "list.-1=1",
        "list.x=1",
        "list.²=1",
        "number.x=1",
        "text.0=1",
    ],
)
def test_a_bad_setting_is_shown_as_it_was_typed(setting: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.override({"list": [1, 2], "number": 3, "text": "abc"}, [setting])
    assert str(caught.value).startswith(f"--set {setting}: ")


def test_a_bare_name_is_a_component_with_its_defaults(registry) -> None:
    valid = config.validate({**document(), "translator": "mlp"}, registry)
    assert (valid.translator.name, valid.translator.options["width"]) == ("mlp", 512)


def test_set_never_guesses_at_the_options_of_a_bare_name() -> None:
    with pytest.raises(ConfigError, match=r"--set translator\.width=16: .*'mlp'"):
        config.override({**document(), "translator": "mlp"}, ["translator.width=16"])


@pytest.mark.parametrize("setting", ["zoo.tran=3", "zoo.train=many"])
def test_a_mistake_in_set_is_a_mistake_of_the_user(setting: str, capsys) -> None:
    assert main(["run", str(EXAMPLES[0]), "--set", setting]) == 2
    error = capsys.readouterr().err
    assert setting.partition("=")[0] in error and "Traceback" not in error


def test_deeply_nested_settings_are_no_crash(registry) -> None:
    with pytest.raises(ConfigError, match=r"\ba\b"):
        config.validate(config.override(document(), [".".join("a" * 3000) + "=1"]), registry)


# Resolved configs


def test_defaults_of_frame_and_components_are_filled_in(registry) -> None:
    valid = config.validate(document(), registry).model_dump(mode="json")
    assert valid["source"] == {"name": "basic_block", "channels": 4, "hidden": None, "kernel": 3, "read": "folded"}
    assert valid["zoo"]["step2"]["momentum"] == 0.9
    assert valid["translator"]["standardize"] is True
    functional = {"name": "functional", "weight": 1.0, "features": 1.0, "outputs": 0.0, "task": 0.0, "examples": 4}
    assert valid["objectives"] == [functional]
    rivals = ["zero_block", "random_init", "random_replacement", "greedy_replacement"]
    assert [rival["name"] for rival in valid["evaluation"]["rivals"]] == rivals
    assert valid["executor"]["name"] == "local"


def test_a_size_of_table_two_is_resolved_to_its_numbers(registry) -> None:
    valid = config.validate(changed("translator={name='mixer', size='wide'}"), registry)
    assert valid.translator.options["width"] == 512
    assert config.validate(valid.model_dump(mode="json"), registry) == valid


@pytest.mark.parametrize(
    "settings",
    [
        [],
        ["translator={name='mixer', size='small'}"],
        ["translator=mlp", "augmenters=[]"],
        ["augmenters=[{name='mask', share=0.1, on='both'}, {name='noise', scale=0.2}]"],
        ["evaluation={trained_target=false, rivals=[]}"],
        ["run={dir='x', cache='y', device='cpu'}", "zoo.pairs=3"],
        ["objectives=['mse', {name='functional', weight=0.5, task=1}]"],
    ],
)
def test_a_resolved_config_validates_to_itself(registry, settings: list[str]) -> None:
    valid = config.validate(changed(*settings), registry)
    dumped = valid.model_dump(mode="json")
    again = config.validate(dumped, registry)
    assert again == valid
    assert again.model_dump(mode="json") == dumped


def test_a_value_of_another_type_is_refused_even_where_it_could_be_converted(registry) -> None:
    assert problem_of(registry, "target.hidden=3.0").startswith("x.toml: target.hidden: ")
    assert problem_of(registry, 'training.lr="0.1"').startswith("x.toml: training.lr: ")


def test_configs_cannot_be_changed(registry) -> None:
    valid = config.validate(document(), registry)
    with pytest.raises(ValueError, match="frozen"):
        valid.zoo = None


def test_every_model_of_the_frame_is_frozen_and_refuses_infinities() -> None:
    models = [m for m in vars(schema).values() if isinstance(m, type) and issubclass(m, BaseModel)]
    assert len(models) > 5
    for model in models:
        assert model.model_config.get("extra") in ("forbid", "allow")
        assert model.model_config.get("allow_inf_nan") is False
        assert model.model_config.get("frozen") is True


# Fuzz

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates() | st.datetimes()
WORDS = """task source target zoo translator objectives augmenters training evaluation executor run name channels
hidden train select report step1 step2 steps lr rivals on weight options 0"""
KEYS = st.sampled_from(re.findall(r"\w+", WORDS)) | st.text(max_size=6)
VALUES = st.recursive(
    SCALARS | st.sampled_from(["mnist", "conv", "mixer", "mlp", "functional", "mse", "zero_block", "noise"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)
FUZZ = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def only_config_errors(content: Any, registry: Registry) -> None:
    try:
        assert isinstance(config.validate(content, registry), config.Config)
    except ConfigError as error:
        assert error.problems and all(isinstance(problem, str) and problem for problem in error.problems)


@FUZZ
@given(content=st.dictionaries(KEYS, VALUES, max_size=8))
def test_any_document_is_accepted_or_a_config_error(registry, content: dict[str, Any]) -> None:
    only_config_errors(content, registry)


@FUZZ
@given(key=st.sampled_from(sorted(document())), value=VALUES)
def test_a_good_config_with_any_part_replaced_is_accepted_or_a_config_error(registry, key: str, value: Any) -> None:
    only_config_errors({**document(), key: value}, registry)


@FUZZ
@given(part=st.sampled_from(["task", "source", "target", "translator"]), option=KEYS, value=VALUES)
def test_any_option_of_a_component_is_accepted_or_a_config_error(registry, part, option, value) -> None:
    content = document()
    only_config_errors({**content, part: {**content[part], option: value}}, registry)


@FUZZ
@given(content=st.binary(max_size=200) | st.text(max_size=100).map(lambda text: text.encode("utf-8", "surrogatepass")))
@example(content=b"\xef\xbb\xbfa = 1")
@example(content=b"a = 1e999999")
@example(content=b"a.b.c.d = 1\na.b = 2")
@example(content=b"a = 10000-01-01")
def test_any_bytes_are_a_config_or_a_config_error(registry, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "fuzz.toml"
    path.write_bytes(content)
    try:
        config.load(path, registry)
    except ConfigError as error:
        assert str(error).startswith(str(path))


@FUZZ
@given(setting=st.text(max_size=20) | st.tuples(KEYS, KEYS, st.text(max_size=8)).map(lambda t: f"{t[0]}.{t[1]}={t[2]}"))
def test_any_setting_is_applied_or_a_config_error(setting: str) -> None:
    try:
        assert isinstance(config.override(document(), [setting]), dict)
    except ConfigError as error:
        assert str(error).startswith("--set ")


@FUZZ
@given(data=st.data())
def test_any_accepted_config_validates_again_to_itself(registry, data: st.DataObject) -> None:
    settings = [
        f"zoo.train={data.draw(st.integers(1, 9))}",
        f"zoo.step1.lr={data.draw(st.floats(1e-6, 10))}",
        f"target.hidden={data.draw(st.integers(1, 9))}",
        f"source.kernel={data.draw(st.sampled_from([1, 3, 5, 7]))}",
        f"translator.dropout={data.draw(st.floats(0, 0.99))}",
        f"augmenters.0.on={data.draw(st.sampled_from(['source', 'target', 'both']))}",
        f"run.dir={data.draw(st.text(alphabet='abc/ éß', min_size=1, max_size=8))!r}",
    ]
    valid = config.validate(changed(*settings), registry)
    assert config.validate(valid.model_dump(mode="json"), registry) == valid


@pytest.mark.parametrize("key", ["a." * 40_000 + "a", '"a" . ' * 9_000 + "a", "'a'." * 9_000 + "a"])
def test_a_key_without_end_is_refused_before_it_is_read(tmp_path: Path, key: str) -> None:
    (tmp_path / "x.toml").write_text(f"{key} = 1")
    with pytest.raises(ConfigError, match="parts"):
        config.read(tmp_path / "x.toml")


@pytest.mark.parametrize("text", ["a = '" + "x" * 90_000 + "'", "# " + "a " * 40_000, 'a = "' + "1.5, " * 9_000 + '"'])
def test_long_texts_are_no_long_keys(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.toml").write_text(text)
    config.read(tmp_path / "x.toml")


def test_a_thousand_mistakes_are_told_in_fifty_lines_and_a_number(registry) -> None:
    messages = problems(registry, {**document(), **{f"x{i}": 1 for i in range(1000)}})
    assert len(messages) == 51 and messages[-1].endswith("and 950 more")


def test_a_list_of_more_components_than_anyone_needs_is_refused_at_once(registry) -> None:
    messages = problems(registry, {**document(), "objectives": ["x"] * 20_000})
    assert len(messages) <= 101 and "objectives" in messages[0]


# What a config says of itself


def test_further_targets_are_held_to_what_there_is(registry) -> None:
    assert 'unknown block adapter "nothing"' in problem_of(registry, 'training.targets=["nothing"]')


def test_options_are_kept_as_json_has_them(registry) -> None:
    valid = config.validate(changed('translator={name="equivariant", probes=2, input=[1, 28, 28]}'), registry)
    assert valid.translator.options["input"] == [1, 28, 28]


def test_the_report_hosts_have_a_config_of_their_own(registry) -> None:
    plain = config.validate(document(), registry)
    assert plain.reported() is plain
    settings = ('zoo.also=["digits"]', "report.begin=further", "report.step1={steps=3}")
    for another in ((), ('report.task={name="mnist", channels=4, share=0.5}',)):
        valid = config.validate(changed(*settings, *another), registry)
        reported = valid.reported()
        assert reported.task == (valid.report.task if another else valid.task)
        assert reported.zoo.step1.steps == 3 and reported.zoo.step2 == valid.zoo.step2
        untouched = {"task": True, "report": True, "zoo": {"step1", "also"}}
        assert reported.report is None and reported.zoo.also == ()
        assert reported.model_dump(exclude=untouched) == valid.model_dump(exclude=untouched)


def test_a_config_with_another_task_is_else_the_same(registry) -> None:
    valid = config.validate(changed('zoo.also=["digits"]', "report.begin=further"), registry)
    reported = valid.with_task(valid.zoo.also[0])
    assert reported.task == valid.zoo.also[0] and reported.zoo.also == () and reported.report is None
    untouched = {"task": True, "report": True, "zoo": {"also"}}
    assert reported.model_dump(exclude=untouched) == valid.model_dump(exclude=untouched)


def test_what_is_run_is_told_in_json_and_without_where(registry) -> None:
    identity = config.validate(changed("run.dir=here"), registry).identity()
    assert json.loads(json.dumps(identity)) == identity and not identity.keys() & {"run", "executor"}


@pytest.mark.parametrize(
    ("given", "examples", "steps"),
    [({"steps": 7}, 1000, 7), ({"epochs": 3}, 20, 6), ({"epochs": 3}, 21, 9), ({"epochs": 1}, 5, 1)],
)
def test_the_last_batch_of_an_epoch_may_be_short(given: dict[str, int], examples: int, steps: int) -> None:
    assert config.HostTraining(**given, batch_size=10).length(examples) == steps


def test_a_length_is_given_once() -> None:
    for length in ({}, {"steps": 3, "epochs": 3}):
        with pytest.raises(ValueError, match="give either steps or epochs"):
            config.HostTraining(**length)


def test_where_a_run_is_made_is_no_part_of_what_it_is(registry) -> None:
    here = config.validate(changed("run.dir=a", 'executor={name="local", processes=3}'), registry)
    there = config.validate(changed("run.dir=b", "run.device=cpu"), registry)
    assert here.identity() == there.identity() and here != there
    assert here.identity().keys() == {*config.Config.model_fields} - {"run", "executor"}
    assert here.identity() != config.validate(changed("zoo.seed=1"), registry).identity()


def test_pairs_are_at_most_as_many_as_training_hosts(registry) -> None:
    assert config.validate(document(), registry).zoo.target_hosts == 6
    for pairs, count in ((4, 4), (9, 6), (0, 0)):
        assert config.validate(changed(f"zoo.pairs={pairs}"), registry).zoo.target_hosts == count


def test_a_file_of_hosts_stands_beside_the_config_that_names_it(registry, tmp_path: Path) -> None:
    (tmp_path / "base.toml").write_text(TINY.read_text().replace('name = "tiny"', 'name = "mnist"'))
    loaded = config.load(tmp_path / "base.toml", registry, ["zoo.report_from=hosts.safetensors"])
    assert loaded.zoo.report_from == str(tmp_path / "hosts.safetensors")
    assert config.load(str(tmp_path / "base.toml"), registry).zoo.report_from is None
    assert config.load(tmp_path / "base.toml", registry, ["zoo.report_from=/a/b"]).zoo.report_from == "/a/b"
    with pytest.raises(ConfigError, match=r"base\.toml: zoo\.trai: "):
        config.load(tmp_path / "base.toml", registry, ["zoo.trai=3"])
    with pytest.raises(ConfigError, match=r"base\.toml: scale: unknown scale 'pic'"):
        config.load(tmp_path / "base.toml", registry, ["scale=pic"])


def test_a_config_of_several_runs_is_not_taken_for_one(registry, tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text('[sweep]\nover = {"zoo.seed" = [1, 2]}\n')
    with pytest.raises(ConfigError, match=r"x\.toml: sweep: .*paramtrans run"):
        config.load(tmp_path / "x.toml", registry)
