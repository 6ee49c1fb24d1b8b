"""Metrics, sections of the page, architectures and rules for widths, each brought by a plugin."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import paramtrans
from paramtrans import ArchitectureSource, Config, Metric, ReportSection, run
from paramtrans.api.specs import Component
from paramtrans.errors import ConfigError, SpecMismatch
from paramtrans.networks.loading import architectures
from paramtrans.plugins import Plugins, hookimpl
from paramtrans.plugins.registry import KINDS, Provider

Make = Callable[..., Config]


class Confidence(Metric):
    """The largest probability."""

    def measure(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return outputs.softmax(-1).amax(-1)


class Wrong(Metric):
    """One number for each host."""

    def measure(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return outputs.mean((1, 2))


class Greeting(ReportSection):
    title = "A greeting <here>"

    def html(self, run: Mapping[str, Any], evaluation: Mapping[str, Any]) -> str:
        return f"<p id='greeting'>{len(evaluation['methods'])} methods</p>"


class Failing(ReportSection):
    title = "Failing"

    def html(self, run: Mapping[str, Any], evaluation: Mapping[str, Any]) -> str:
        raise KeyError("nothing")


class Acme(ArchitectureSource):
    form = "WIDTH"

    def build(self, name: str, arguments: Mapping[str, Any]) -> nn.Module:
        if not name.isdigit():
            raise ConfigError([f"architecture: {name!r} is no width"])
        return nn.Sequential(nn.Linear(4, int(name)), nn.ReLU(), nn.Linear(int(name), arguments.get("out", 2)))


class Kinds:
    """All of the above."""

    def _components(self, *classes: type) -> list[Component]:
        return [Component(cls.__name__.lower(), "of the tests", f"{__name__}:{cls.__name__}") for cls in classes]

    @hookimpl
    def paramtrans_metrics(self) -> list[Component]:
        return self._components(Confidence, Wrong)

    @hookimpl
    def paramtrans_report_sections(self) -> list[Component]:
        return self._components(Greeting, Failing)

    @hookimpl
    def paramtrans_architectures(self) -> list[Component]:
        return self._components(Acme)


@pytest.fixture
def loaded(tiny_plugins: Plugins, monkeypatch: pytest.MonkeyPatch) -> Plugins:
    monkeypatch.setitem(__import__("sys").modules, __name__, __import__("sys").modules.get(__name__) or _this())
    tiny_plugins.register(Kinds(), Provider("acme", "1"))
    return tiny_plugins


def _this() -> Any:
    """This file as a module: how tests are imported, it is none by name."""
    import types

    module = types.ModuleType(__name__)
    vars(module).update(globals())
    return module


def test_metrics_are_measured_for_every_method_and_stand_on_the_page(loaded: Plugins, tiny_config: Make) -> None:
    metrics = 'evaluation.metrics=["confidence", {name="top_k", k=4}]'
    sections = 'evaluation.sections=["metrics", "greeting", "failing"]'
    result = run(tiny_config(metrics, sections), loaded=loaded)
    for method in result.methods.values():
        assert 0.25 <= method["metrics"]["confidence"]["mean"] <= 1 and method["metrics"]["top_k"]["mean"] == 100
        assert method["metrics"]["top_k"]["n"] == 3
    page = (result.dir / "report.html").read_text()
    assert f"<p id='greeting'>{len(result.methods)} methods</p>" in page and "A greeting &lt;here&gt;" in page
    assert 'aria-label="Table of metrics"' in page and "Failing</h2>" not in page


def test_a_metric_of_another_shape_is_named(loaded: Plugins, tiny_config: Make) -> None:
    with pytest.raises(SpecMismatch, match="wrong: gave numbers of shape"):
        run(tiny_config('evaluation.metrics=["wrong"]'), loaded=loaded)


def test_a_metric_is_named_once(loaded: Plugins, tiny_config: Make) -> None:
    with pytest.raises(ConfigError, match="top_k is named twice"):
        tiny_config('evaluation.metrics=["top_k", "top_k"]')


def test_an_architecture_source_builds_networks_by_name(loaded: Plugins) -> None:
    network = architectures.build("acme:7?out=3", registry=loaded.registry())
    assert network(torch.ones(1, 4)).shape == (1, 3)
    with pytest.raises(ConfigError, match="'wide' is no width"):
        architectures.build("acme:wide", registry=loaded.registry())
    with pytest.raises(ConfigError, match=r"expected torchvision:NAME, acme:WIDTH, export:FILE\.pt2, hf:FOLDER, task:"):
        architectures.build("nothing", registry=loaded.registry())


def test_a_translated_network_of_a_source_is_rebuilt_by_name(loaded: Plugins, tmp_path: Path) -> None:
    registry = loaded.registry()
    network, inputs = architectures.build("acme:8", registry=registry), torch.randn(16, 4)
    small = paramtrans.translate(network, calibrate=inputs, registry=registry)
    paramtrans.save_translated(small, tmp_path / "small.safetensors", "acme:8")
    again = paramtrans.load_translated(tmp_path / "small.safetensors", registry=registry)
    assert torch.equal(again(inputs), small(inputs))


@pytest.mark.parametrize(("rule", "options"), [("ratio", {"ratio": 0.25}), ("measured", {"parameters": 60})])
def test_a_rule_by_name_chooses_widths(loaded: Plugins, rule: str, options: dict[str, Any]) -> None:
    registry = loaded.registry()
    network = architectures.build("acme:16", registry=registry)
    rule_ = registry.create("width_rule", rule, **options)
    small = paramtrans.translate(network, widths=rule_, calibrate=list(torch.randn(2, 16, 4)), registry=registry)
    assert small[0].out_features < 16


def test_every_kind_but_two_has_checks() -> None:
    from paramtrans.testing import every

    assert set(KINDS) - set(every.BASES) == {"command", "pretrained_translator"}
