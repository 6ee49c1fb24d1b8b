"""Examples of a target of one's own: they pass the kit, and one stands in for the attention of transformers' ViT."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
import torch

from paramtrans.cli.main import main

EXAMPLE = Path(__file__).parents[2] / "examples" / "custom_target"


def test_it_passes_the_kit(capsys: pytest.CaptureFixture[str]) -> None:
    plugin = str(EXAMPLE / "pooled_attention.py")
    assert main(["check", "pooled_attention", "--plugin", plugin, "--quiet"]) == 0
    assert capsys.readouterr().out == "16 checks, all passed\n"


def test_the_example_of_the_docs_passes_the_kit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plugin = tmp_path / "squeezed.py"
    page = (EXAMPLE.parents[1] / "docs" / "other-architectures.md").read_text()
    plugin.write_text(page.partition('```python title="squeezed.py"\n')[2].partition("```")[0])
    status = main(["check", "squeezed", "--plugin", str(plugin), "--quiet"])
    assert status == 0 and capsys.readouterr().out.endswith(" checks, all passed\n")


def test_it_takes_the_place_of_attention() -> None:
    pytest.importorskip("transformers")
    ran = runpy.run_path(str(EXAMPLE / "vit.py"))
    network, small, images = ran["network"], ran["small"], ran["images"]
    assert len(small.paramtrans_blocks) == 2
    for block in small.paramtrans_blocks:
        assert block.started == "closed form"
        assert block.parameters[1] < block.parameters[0]
        assert block.feature_error < 0.7 * block.start_error < 0.7 * 0.3
    assert sum(map(torch.numel, small.parameters())) < sum(map(torch.numel, network.parameters()))
    with torch.no_grad():
        assert small(images).last_hidden_state.shape == network(images).last_hidden_state.shape
