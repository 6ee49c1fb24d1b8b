"""The diagnosis says of blocks with a known fault that they have it."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from paramtrans import components
from paramtrans.api.context import Context
from paramtrans.api.modules import initial
from paramtrans.api.stacking import Params
from paramtrans.cli.main import main
from paramtrans.config import Config
from paramtrans.evaluation.diagnosis import likeness, nearest, silent
from paramtrans.plugins import Plugins
from paramtrans.runs.run import run
from paramtrans.translators.base import LearnedTranslator

pytestmark = pytest.mark.pipeline

CONV = components().create("block_adapter", "conv", channels=4, hidden=3)
ATTENTION = components().create("block_adapter", "attention", channels=4)


def test_units_that_are_one_and_the_same_are_alike_whatever_their_scale() -> None:
    blocks = initial(CONV.module, range(3))
    assert abs(likeness(blocks, CONV.spec)) < 0.3
    blocks["conv1.weight"][:] = blocks["conv1.weight"][:, :1] * torch.tensor([1.0, 0.1, 7.0]).view(1, 3, 1, 1, 1)
    assert likeness(blocks, CONV.spec) == pytest.approx(1.0, abs=1e-5)
    blocks["conv1.weight"][:, 0] *= -1
    assert likeness(blocks, CONV.spec) == pytest.approx(-1 / 3, abs=1e-5)


def test_silent_units_are_counted_and_none_where_they_are_not_declared() -> None:
    blocks = initial(CONV.module, range(2))
    blocks["conv1.weight"][1, 2] = -blocks["conv1.weight"][1, 2].abs()
    shares = silent(CONV, blocks, torch.rand(2, 5, 4, 6, 6))
    assert shares.tolist() == [[False] * 3, [False, False, True]]
    basic = components().create("block_adapter", "basic_block", channels=4)
    assert silent(basic, initial(basic.module, [0]), torch.rand(1, 5, 4, 6, 6)) is None
    assert not silent(ATTENTION, initial(ATTENTION.module, [0]), torch.rand(1, 5, 4, 6, 6)).any()


def test_copies_are_at_distance_zero_rescaled_ones_too() -> None:
    trained = initial(CONV.module, range(6))
    copies = {name: tensor[[4, 1]] for name, tensor in trained.items()}
    copies["conv1.weight"], copies["conv2.weight"] = 3 * copies["conv1.weight"], copies["conv2.weight"] / 3
    assert nearest(copies, trained, CONV.spec) < 1e-2
    assert 0.5 < nearest(initial(CONV.module, range(20, 24)), trained, CONV.spec) < 1.5


def test_a_run_is_diagnosed_and_the_command_shows_it(
    tiny_config: Callable[..., Config],
    tiny_plugins: Plugins,
    capsys: pytest.CaptureFixture[str],
) -> None:
    result = run(tiny_config("zoo.report=4", "zoo.step1.steps=40"), loaded=tiny_plugins)
    methods = result.evaluation["diagnosis"]["methods"]
    assert methods.keys() == result.methods.keys() - {"source"}
    for diagnosis in methods.values():
        assert len(diagnosis["confidence"]) == 4
        divergences = [-math.log(value) for value in diagnosis["confidence"]]  # confidences are rounded
        assert statistics.fmean(divergences) == pytest.approx(diagnosis["output_divergence"], abs=1e-3)
    assert methods["zero_block"]["silent_units"] == 1 and methods["zero_block"]["unit_cosine"] == 0
    assert methods["random_replacement"]["nearest_pair"] < 1e-2
    assert main(["diagnose", str(result.dir)]) == 0
    shown = capsys.readouterr().out
    assert "random initialisation" in shown and "least confidence: host " in shown
    assert main(["diagnose", str(result.dir), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == result.evaluation["diagnosis"].model_dump(mode="json")


def test_blocks_whose_units_fell_silent_are_warned_of(
    tiny_config: Callable[..., Config],
    tiny_plugins: Plugins,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    run(tiny_config(), loaded=tiny_plugins)
    assert "silent" not in caplog.text
    translate = LearnedTranslator.translate

    def collapsed(self: LearnedTranslator, source: Params, context: Context | None = None) -> Params:
        blocks = translate(self, source, context)
        return {**blocks, "conv1.weight": torch.zeros_like(blocks["conv1.weight"])}

    monkeypatch.setattr(LearnedTranslator, "translate", collapsed)
    run(tiny_config(), fresh=True, loaded=tiny_plugins)
    assert "100% of the blocks' hidden units are silent" in caplog.text and "lower training.lr" in caplog.text


def test_a_folder_without_a_diagnosis_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diagnose", str(tmp_path)]) == 2
    assert "is missing; give the folder of a finished run" in capsys.readouterr().err
    assert main(["diagnose", str(Path(__file__).parents[1] / "golden" / "run")]) == 2
    assert "has no diagnosis" in capsys.readouterr().err
