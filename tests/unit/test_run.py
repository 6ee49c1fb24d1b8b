"""What only a whole run shows: stages left out, mistakes found before anything is trained, checkpoints."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from rich.console import Console

from paramtrans.config import Config
from paramtrans.errors import ConfigError
from paramtrans.ops.statistics import gap_closed
from paramtrans.plugins import Plugins
from paramtrans.runs.run import Run, run
from paramtrans.training.trainer import Trainer
from paramtrans.utils.progress import ConsoleReporter, Reporter
from paramtrans.zoo import Zoo

pytestmark = pytest.mark.pipeline

Make = Callable[..., Config]


def test_without_trained_targets_the_run_ends_with_its_report(tiny_config: Make, tiny_plugins: Plugins) -> None:
    result = run(tiny_config("evaluation.trained_target=false", "zoo.pairs=0"), loaded=tiny_plugins)
    assert result.methods.keys() == {"source", "translated", "zero_block", "random_init"}
    assert "Step 2 was not run" in (result.dir / "report.html").read_text()


def test_a_translator_that_does_not_fit_the_host_is_told_before_anything_is_trained(
    tiny_config: Make, tiny_plugins: Plugins, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Zoo, "missing", lambda self, step, outdated=0: pytest.fail("too late"))
    translator = 'translator={name="equivariant", width=8, heads=2, surroundings=3}'
    with pytest.raises(ConfigError, match=r"translator: translator.surroundings is 3, but the task declares"):
        run(tiny_config(translator), loaded=tiny_plugins)


@pytest.mark.parametrize("rivals", [["zero_block", "zero_block"], ["translated"]])
def test_rivals_of_one_name_are_refused(tiny_config: Make, rivals: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"evaluation\.rivals"):
        tiny_config(f"evaluation.rivals={rivals}")


STROKES = 'probes={name="strokes", count=8}'
MATCHING = '{name="matching", steps=3}'


def test_methods_stand_beside_the_translator_with_what_they_took(tiny_config: Make, tiny_plugins: Plugins) -> None:
    images = 'probes={name="images", count=6}'
    methods = [
        f'{{label="without an image", translator={MATCHING}, {STROKES}}}',
        f'{{label="translated, then matched", then=[{MATCHING}], {images}}}',
    ]
    result = run(tiny_config(f"evaluation.methods=[{', '.join(methods)}]"), loaded=tiny_plugins)
    translated, free, chain = (
        result.methods[name] for name in ("translated", "without an image", "translated, then matched")
    )
    assert (translated["images"], free["images"], chain["images"]) == (0, 0, 6)
    seconds = result.evaluation.seconds_per_host
    assert seconds["translated, then matched"] > seconds["translated"] > 0
    assert result.methods["trained_target"]["images"] == 96
    means = {name: method["mean"] for name, method in result.methods.items()}
    assert all(method["gap_closed"] == gap_closed(means, name) for name, method in result.methods.items())
    accuracies = result.evaluation.hosts.accuracies
    differences = [a - b for a, b in zip(accuracies["translated, then matched"], accuracies["translated"], strict=True)]
    assert chain["difference"]["mean"] == pytest.approx(sum(differences) / len(differences))
    assert result.evaluation.baseline == "translated" and "difference" not in translated
    assert "translated, then matched" in (result.dir / "report.html").read_text()


def test_a_methods_place_is_between_random_initialisation_and_the_trained_target() -> None:
    means = {"random_init": 20.0, "trained_target": 80.0, "a": 65.0, "b": 95.0}
    assert [gap_closed(means, name) for name in means] == [0.0, 1.0, 0.75, 1.25]
    assert gap_closed(means | {"trained_target": 20.0}, "a") is None
    assert gap_closed({"a": 1.0}, "a") is None


def test_methods_alone_need_neither_training_hosts_nor_a_translator(
    tiny_config: Make, tiny_plugins: Plugins, tmp_path: Path
) -> None:
    from paramtrans import config

    document = tiny_config().model_dump(mode="json")
    for part in ("translator", "objectives", "augmenters", "training"):
        del document[part]
    del document["zoo"]["train"], document["zoo"]["select"]
    methods = [f'{{label="matched", translator={MATCHING}, {STROKES}}}']
    settings = [f"evaluation.methods=[{', '.join(methods)}]", 'evaluation.baseline="zero_block"']
    alone = config.validate(config.override(document, settings), tiny_plugins.registry())
    result = run(alone, loaded=tiny_plugins)
    assert result.methods.keys() == {"source", "trained_target", "matched", "zero_block", "random_init"}
    assert result.evaluation.translator is None and not (result.dir / "translator").exists()
    assert set(result.methods["matched"]["difference"]) == {"mean", "ci95"}
    assert "none of the run" in (result.dir / "report.html").read_text()
    assert run(alone, loaded=tiny_plugins).methods == result.methods


def test_a_chain_that_does_not_fit_is_told_before_anything_is_trained(
    tiny_config: Make, tiny_plugins: Plugins, monkeypatch: pytest.MonkeyPatch
) -> None:
    from paramtrans_matching.translator import Matching

    from paramtrans.errors import SpecMismatch

    def refuse(self: Matching, *args: object) -> None:
        raise SpecMismatch("no such pair")

    monkeypatch.setattr(Zoo, "missing", lambda self, step, outdated=0: pytest.fail("too late"))
    monkeypatch.setattr(Matching, "__init__", refuse)
    with pytest.raises(ConfigError, match=r"evaluation\.methods\.0: no such pair"):
        run(tiny_config(f'evaluation.methods=[{{label="a", then=["matching"], {STROKES}}}]'), loaded=tiny_plugins)


def trainer(config: Config, loaded: Plugins) -> Trainer:
    run_ = Run(config, "run", Reporter(), loaded)
    run_.builder.task.prepare(run_.cache)
    hosts = run_.zoo.load("train")
    return Trainer(run_.builder, run_.builder.translator(0), hosts, run_.zoo.load("select"), run_.folder.checkpoint)


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(
    tiny_config: Make, tiny_plugins: Plugins, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = tiny_config()
    run(config, loaded=tiny_plugins)  # for its zoo
    first = trainer(config, tiny_plugins)
    expected = [dict(epoch) for epoch in first.run(lambda epoch, metrics: None).epochs]
    [last] = first.checkpoint.folder.glob("epoch-*.safetensors")
    assert last.name == "epoch-0000004.safetensors"

    again = trainer(config, tiny_plugins)
    for path in again.checkpoint.folder.iterdir():
        path.unlink()
    stopped = KeyboardInterrupt()
    monkeypatch.setattr("paramtrans.storage.files.remove", lambda path: None)  # so that earlier points stay

    def stop(epoch: int, metrics: dict[str, float]) -> None:
        if epoch == 4:
            raise stopped

    with pytest.raises(KeyboardInterrupt):
        again.run(stop)
    (again.checkpoint.folder / "epoch-0000003.safetensors").write_bytes(b"cut off")
    resumed = trainer(config, tiny_plugins)
    assert resumed.begin() == 2
    seen: list[int] = []
    history = resumed.run(lambda epoch, metrics: seen.append(epoch))
    assert seen == [3, 4]
    assert [dict(epoch) for epoch in history.epochs] == expected


def test_a_stage_goes_on_where_an_earlier_attempt_stopped() -> None:
    written = io.StringIO()
    with ConsoleReporter(Console(file=written, width=200)).stage("step 3", 100, 40) as stage:
        stage.advance(60)
    assert written.getvalue().splitlines() == ["step 3: 40/100", "step 3: done in 0 s"]


def test_a_checkpoint_of_another_config_is_not_used(tiny_config: Make, tiny_plugins: Plugins) -> None:
    run(tiny_config(), loaded=tiny_plugins)
    trainer(tiny_config(), tiny_plugins).run(lambda epoch, metrics: None)
    seen: list[int] = []
    trainer(tiny_config("training.seed=1"), tiny_plugins).run(lambda epoch, metrics: seen.append(epoch))
    assert seen == [1, 2, 3, 4]


SIZES = (
    'translator={name="equivariant", layers=1, width=8, heads=2, probes=2, input=[1, 8, 8], rounds=2}',
    'objectives=[{name="functional", examples=4}]',
    "training.sizes=[{hidden=1}, {hidden=3}]",
)


FAMILIES = (*SIZES[:2], 'training.targets=[{name="mlp", channels=4, hidden=3}, {name="attention", channels=4}]')


@pytest.mark.parametrize(("settings", "numel"), [(SIZES, [144, 72, 216]), (FAMILIES, [144, 31, 64])])
def test_training_on_several_targets_goes_on_exactly_where_it_stopped(
    tiny_config: Make, tiny_plugins: Plugins, settings: tuple[str, ...], numel: list[int]
) -> None:
    config = tiny_config(*settings)
    run(config, loaded=tiny_plugins)  # for its zoo
    whole = trainer(config, tiny_plugins)
    assert [step.translator.target.spec.numel for step in whole.training_steps] == numel
    expected = whole.run(lambda epoch, metrics: None)
    for path in whole.checkpoint.folder.iterdir():
        path.unlink()

    def stop(epoch: int, metrics: dict[str, float]) -> None:
        if epoch == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trainer(config, tiny_plugins).run(stop)
    again = trainer(config, tiny_plugins)
    history = again.run(lambda epoch, metrics: None)
    assert len(again.history.epochs) == len(expected.epochs) and history.epochs == expected.epochs
    weights = again.translator.state_dict()
    assert all(torch.equal(weights[name], tensor) for name, tensor in whole.translator.state_dict().items())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["training.sizes=[{hidden=1}]"], r"training\.sizes: Mixer translates blocks of one size"),
        ([*SIZES, "training.sizes=[{hiden=1}]"], r"training\.sizes: .*hiden"),
        ([*SIZES, "training.sizes=[{channels=3}]"], r"training\.sizes: channels: target block has 3"),
        ([*SIZES, 'objectives=[{name="mse"}]'], r"training\.sizes: objective mse needs a trained target"),
        ([FAMILIES[-1]], r"training\.targets: Mixer writes blocks of one family"),
        ([*FAMILIES, 'training.targets=[{name="mpl"}]'], r"training\.targets\.0\.name: unknown block adapter \"mpl\""),
        ([*FAMILIES, 'training.targets=[{name="mlp", channels=4}]'], r"training\.targets\.0\.hidden: "),
        (
            [*FAMILIES, 'training.targets=[{name="attention", channels=3}]'],
            r"training\.targets: channels: target block",
        ),
        ([*FAMILIES, 'objectives=[{name="mse"}]'], r"training\.targets: objective mse needs a trained target"),
    ],
)
def test_targets_that_cannot_be_trained_on_are_told(
    tiny_config: Make, tiny_plugins: Plugins, settings: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        run(tiny_config(*settings), loaded=tiny_plugins)


def test_one_translator_of_two_families_is_used_at_each(
    tiny_config: Make, tiny_plugins: Plugins, tmp_path: Path
) -> None:
    first = run(tiny_config(*FAMILIES), loaded=tiny_plugins)
    trained = f'{{label="both", translator={{name="trained", folder="{first.dir}"}}}}'
    beside = ('translator={name="mixer", layers=1, width=8}', "training.epochs=1", f"evaluation.methods=[{trained}]")
    same = run(tiny_config(*beside, dir=tmp_path / "conv"), loaded=tiny_plugins)
    assert same.methods["both"]["mean"] == first.methods["translated"]["mean"]
    mlp = 'target={name="mlp", channels=4, hidden=5}'  # and at another width than it was trained at
    other = run(tiny_config(*beside, mlp, dir=tmp_path / "mlp"), loaded=tiny_plugins)
    assert other.methods["both"]["n"] == 3
    third = 'target={name="basic_block", channels=4}'
    with pytest.raises(
        ConfigError, match=r"evaluation\.methods\.0: .*BasicBlock .*another family than .*Conv .*; MLP "
    ):
        run(tiny_config(*beside, third, dir=tmp_path / "third"), loaded=tiny_plugins)
