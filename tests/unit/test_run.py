"""What only a whole run shows: stages left out, mistakes found before anything is trained, checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from paramtrans.config import Config
from paramtrans.engine import Run, run
from paramtrans.errors import ConfigError
from paramtrans.plugins import Plugins
from paramtrans.progress import Reporter
from paramtrans.training import Trainer
from paramtrans.zoo import Zoo

Make = Callable[..., Config]


def test_without_trained_targets_the_run_ends_with_its_report(tiny_config: Make, tiny_plugins: Plugins) -> None:
    result = run(tiny_config("evaluation.trained_target=false", "zoo.pairs=0"), loaded=tiny_plugins)
    assert result.methods.keys() == {"source", "translated", "zero_block", "random_init"}
    assert "Step 2 was not run" in (result.dir / "report.html").read_text()


def test_a_translator_that_does_not_fit_the_host_is_told_before_anything_is_trained(
    tiny_config: Make, tiny_plugins: Plugins, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Zoo, "missing", lambda self, step: pytest.fail("too late"))
    translator = 'translator={name="equivariant", width=8, heads=2, surroundings=3}'
    with pytest.raises(ConfigError, match=r"translator: translator.surroundings is 3, but the task declares"):
        run(tiny_config(translator), loaded=tiny_plugins)


@pytest.mark.parametrize("rivals", [["zero_block", "zero_block"], ["translated"]])
def test_rivals_of_one_name_are_refused(tiny_config: Make, rivals: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"evaluation\.rivals"):
        tiny_config(f"evaluation.rivals={rivals}")


def trainer(config: Config, loaded: Plugins) -> Trainer:
    made = Run(config, "run", Reporter(), loaded)
    made.parts.task.prepare(made.cache)
    hosts = made.zoo.load("train")
    return Trainer(made.parts, made.parts.translator(0), hosts, made.zoo.load("select"), made.folder.checkpoint)


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(
    tiny_config: Make, tiny_plugins: Plugins, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = tiny_config()
    run(config, loaded=tiny_plugins)  # for its zoo
    first = trainer(config, tiny_plugins)
    expected = [dict(epoch) for epoch in first.run(lambda epoch, metrics: None).epochs]
    [last] = first.checkpoint.glob("epoch-*.safetensors")
    assert last.name == "epoch-0000004.safetensors"

    again = trainer(config, tiny_plugins)
    for path in again.checkpoint.iterdir():
        path.unlink()
    stopped = KeyboardInterrupt()
    monkeypatch.setattr("paramtrans.store.remove", lambda path: None)  # so that earlier points stay

    def stop(epoch: int, metrics: dict[str, float]) -> None:
        if epoch == 4:
            raise stopped

    with pytest.raises(KeyboardInterrupt):
        again.run(stop)
    (again.checkpoint / "epoch-0000003.safetensors").write_bytes(b"cut off")
    resumed = trainer(config, tiny_plugins)
    seen: list[int] = []
    history = resumed.run(lambda epoch, metrics: seen.append(epoch))
    assert seen == [3, 4]
    assert [dict(epoch) for epoch in history.epochs] == expected


def test_a_checkpoint_of_another_config_is_not_used(tiny_config: Make, tiny_plugins: Plugins) -> None:
    run(tiny_config(), loaded=tiny_plugins)
    trainer(tiny_config(), tiny_plugins).run(lambda epoch, metrics: None)
    seen: list[int] = []
    trainer(tiny_config("training.seed=1"), tiny_plugins).run(lambda epoch, metrics: seen.append(epoch))
    assert seen == [1, 2, 3, 4]
