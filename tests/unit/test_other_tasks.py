"""Tasks whose inputs are no images and whose labels are no classes; networks whose operations cannot be counted."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from paramtrans import Batch, ConfigError, Context, Hosts, SpecMismatch, TrainingError, config, initial, run
from paramtrans.backends.host_runner import HostRunner
from paramtrans.cli.main import main
from paramtrans.evaluation import costs
from paramtrans.networks.blocks import finding as blocks
from paramtrans.plugins import Plugins
from paramtrans.report import findings, html
from paramtrans.runs import pages, planner
from paramtrans.runs.run import Run
from paramtrans.testing import results, subjects
from paramtrans.utils.progress import Reporter

SETTINGS = ["task={name='vectors'}", "zoo.train=3", "zoo.report=2", "training.epochs=1", "run.device=cpu"]


@pytest.fixture
def with_vectors(tiny_plugins: Plugins, support: Path) -> Plugins:
    tiny_plugins.load_file(support / "vectors_task.py")
    return tiny_plugins


def config_of(plugins: Plugins, support: Path, tmp_path: Path) -> Any:
    return config.load(support / "tiny.toml", plugins.registry(), [*SETTINGS, f"run.dir={tmp_path / 'run'}"])


@pytest.mark.thorough
def test_a_task_without_images_and_classes_runs_to_its_end(
    with_vectors: Plugins,
    support: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    calls: list[Any] = []
    hook = type("Hook", (), {})()
    with_vectors.notify = lambda hook, **arguments: calls.append(hook)  # type: ignore[method-assign]
    done = run(config_of(with_vectors, support, tmp_path), loaded=with_vectors)
    assert "translated" in done.methods and hook is not None
    page = (done.dir / "report.html").read_text()
    assert done.as_dict()["metric"]["name"] == "R²" and "R² on 24 test examples" in page
    diagnosed = done.evaluation["diagnosis"]["methods"]["translated"]
    assert diagnosed["output_divergence"] is None and diagnosed["output_error"] > 1e-3
    assert main(["diagnose", str(done.dir)]) == 0 and "output" in capsys.readouterr().out
    assert calls[-1] == "paramtrans_run_finished" and not [r for r in caplog.records if r.name == pages.__name__]


def test_it_passes_the_kit(with_vectors: Plugins) -> None:
    failures = {r.check: r.message for r in results(subjects("vectors", with_vectors.registry()))}
    assert {check: message for check, message in failures.items() if message} == {}


@pytest.mark.parametrize("broken", ["write", "headline"])
def test_a_report_that_cannot_be_made_costs_no_result(
    tiny_config: Callable[..., Any],
    tiny_plugins: Plugins,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    broken: str,
) -> None:
    def fail(*_: object) -> None:
        raise IndexError("tuple index out of range")

    monkeypatch.setattr(html if broken == "write" else findings, broken, fail)
    with caplog.at_level(logging.WARNING):
        done = run(tiny_config("zoo.train=3", "zoo.report=2", "training.epochs=1"), loaded=tiny_plugins)
    assert "translated" in done.methods and "report.html: is left out (IndexError" in caplog.text
    assert run(tiny_config("zoo.train=3", "zoo.report=2", "training.epochs=1"), loaded=tiny_plugins).methods


def test_operations_that_cannot_be_counted_are_left_out_with_a_word(caplog: pytest.LogCaptureFixture) -> None:
    class Uncounted(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("a view was created in no_grad mode")

    assert costs.operations(lambda: Uncounted()(torch.ones(1)), "the block") is None
    assert "the block: its operations are left out" in caplog.text
    assert costs.operations(lambda: nn.Linear(2, 3)(torch.ones(1, 2)), "the block") == 12


def test_attention_counts_in_whole_networks_too() -> None:
    """Scores and values of 2 heads of 4 channels at 3 positions: 2 products of 2 x 3 x 3 x 4 multiply-adds."""
    attention = nn.MultiheadAttention(8, 2, batch_first=True).eval()
    features = torch.ones(1, 3, 8)
    linear = 4 * 2 * 3 * 8 * 8
    assert costs.count(lambda: attention(features, features, features)) == linear + 2 * 2 * 2 * 3 * 3 * 4
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    assert blocks.costs(layer, (features,))["flops"] > 2 * 3 * sum(p.numel() for p in layer.parameters() if p.ndim == 2)
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.mark.parametrize(("layer", "gates"), [(nn.LSTM, 4), (nn.GRU, 3), (nn.RNN, 1)])
def test_recurrent_layers_count(layer: type[nn.RNNBase], gates: int) -> None:
    recurrent, features = layer(5, 7, batch_first=True).eval(), torch.ones(1, 3, 5)
    with torch.no_grad():
        assert costs.count(lambda: recurrent(features)) == 3 * 2 * gates * 7 * (5 + 7)


def test_a_decoder_layer_without_gradients_counts_as_with_them() -> None:
    layer = nn.TransformerDecoderLayer(8, 2, 16, batch_first=True).eval()
    queries = nn.Parameter(torch.ones(3, 8))
    with_gradients = costs.count(lambda: layer(queries[None], torch.ones(1, 3, 8)))
    with torch.no_grad():
        assert costs.count(lambda: layer(queries[None], torch.ones(1, 3, 8))) == with_gradients > 0


def test_a_translator_whose_operations_cannot_be_counted_is_planned(
    tiny_config: Callable[..., Any], tiny_plugins: Plugins, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(costs, "operations", lambda run, what: None)
    plan = planner.plan(Run(tiny_config("zoo.train=3"), "tiny", Reporter(), tiny_plugins))
    assert plan.translator is not None and plan.translator["flops"] is None
    assert "parameters\n" in plan.describe() and plan.seconds["training"] > 0


def test_outputs_that_are_values_are_matched_as_no_probabilities(with_vectors: Plugins) -> None:
    registry = with_vectors.registry()
    task = registry.create("task", "vectors")
    block = registry.create("block_adapter", "conv", channels=4, hidden=3)
    seeds = [0, 1]
    hosts = Hosts(initial(task.former, seeds), initial(block.module, seeds), initial(task.latter, seeds))
    runner, inputs = HostRunner(task, block, block), torch.rand(2, 5, 6)
    objective = registry.create("objective", "functional", runner, outputs=1)
    with pytest.raises(TrainingError, match="no classes"):
        objective(hosts.source, Batch(hosts, None, inputs, inputs.sum(2)))
    with pytest.raises(TrainingError, match="there is one output"):
        objective(hosts.source, Batch(hosts, None, inputs, inputs.sum(2) > 3))
    matching = registry.create("translator", "matching", block, block, outputs=1, steps=1)
    with pytest.raises(SpecMismatch, match=r"matching\.outputs: there is one output"):
        matching.translate(hosts.source, Context(hosts, runner, inputs[0]))


@pytest.mark.parametrize(
    ("metric", "said"),
    [("perplex", r'task: metric: unknown metric "perplex"; did you mean'), (None, "names none, and has no")],
)
def test_a_metric_that_there_is_not_is_told_before_anything_is_trained(
    with_vectors: Plugins,
    support: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    metric: str | None,
    said: str,
) -> None:
    monkeypatch.setattr(with_vectors.registry().load("task", "vectors"), "metric", metric)
    with pytest.raises(ConfigError, match=said):
        run(config_of(with_vectors, support, tmp_path), loaded=with_vectors)
    assert not (tmp_path / "run").exists()


def test_one_translator_does_not_learn_from_tasks_of_different_metrics(
    with_vectors: Plugins, support: Path, tmp_path: Path
) -> None:
    mixed = ["task={name='tiny'}", "zoo.also=[{name='vectors'}]", "objectives=[{name='mse'}]", *SETTINGS[1:]]
    asked = config.load(support / "tiny.toml", with_vectors.registry(), [*mixed, f"run.dir={tmp_path / 'run'}"])
    with pytest.raises(ConfigError, match=r"task vectors: is measured by R², the run's own task by accuracy, %"):
        run(asked, loaded=with_vectors)
