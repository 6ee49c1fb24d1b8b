"""The page of examples shows what `paramtrans new plugin` writes, which other tests install and run."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from paramtrans.plugins.registry import KINDS
from paramtrans.plugins.scaffold_kinds import LIFECYCLE, NAMES

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_is_what_is_written() -> None:
    spec = importlib.util.spec_from_file_location("render_kinds", DOCS / "render_kinds.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    written = (DOCS / "kinds.md").read_text(encoding="utf-8")
    assert written == module.page(), "run docs/render_kinds.py"


@pytest.mark.parametrize("kind", KINDS)
def test_there_is_an_example_of_every_kind(kind: str) -> None:
    assert kind in NAMES and LIFECYCLE in NAMES


def test_the_translator_of_units_on_the_page_makes_a_network_smaller() -> None:
    import torch

    import paramtrans
    from paramtrans.api.specs import Component
    from paramtrans.plugins.registry import Entry, Provider, Registry

    spec = importlib.util.spec_from_file_location("unit_translator", DOCS / "unit_translator.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["unit_translator"] = module
    spec.loader.exec_module(module)
    entry = Entry("translator", Component("busiest", "of the page", "unit_translator:Busiest"), Provider("page", "1"))
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(6, 12), torch.nn.ReLU(), torch.nn.Linear(12, 3)).eval()
    network[0].weight.data[:6] *= 0.01  # these hardly vary
    rows = torch.randn(40, 6)
    made = [
        paramtrans.translate(network, "busiest", ratio=0.5, by="units", calibrate=rows, registry=Registry([entry])),
        paramtrans.translate(network, "prune", ratio=0.5, by="units", calibrate=rows),
    ]
    assert torch.equal(made[1][0].weight, network[0].weight[6:])
    gaps = [float((smaller(rows).mean(0) - network(rows).mean(0)).detach().square().sum()) for smaller in made]
    assert gaps[0] < gaps[1]
