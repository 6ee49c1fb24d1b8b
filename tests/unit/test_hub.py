"""Translators to a hub and back, through huggingface_hub's mixin and a stand-in for the hub; never the network."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.pipeline

hub = importlib.util.spec_from_file_location("stand_in_hub", Path(__file__).parents[1] / "support" / "hub.py")
assert hub and hub.loader
stand_in = importlib.util.module_from_spec(hub)
hub.loader.exec_module(stand_in)

pytest.importorskip("huggingface_hub", reason="the extra paramtrans[hub] is not installed")

GOLDEN = Path(__file__).parents[1] / "golden" / "run"
HEADER = f"""
import json, pathlib, torch
from paramtrans import PretrainedTranslator, load_translator
from paramtrans.api.records import Evaluation, RunRecord
from paramtrans.translators import card
from paramtrans.hub import HubTranslator
from paramtrans.api.modules import initial
golden = pathlib.Path({str(GOLDEN)!r})
record, evaluation = (json.loads((golden / name).read_text()) for name in ("run.json", "evaluation.json"))
known = card.of_run(RunRecord.model_validate(record), Evaluation.model_validate(evaluation))
ours = PretrainedTranslator(load_translator(golden), known)
"""
PUSH = HEADER + 'HubTranslator(ours.translator, ours.card).push_to_hub("me/small", private=True)\n'
PULL = (
    HEADER
    + """
theirs = HubTranslator.from_pretrained("me/small")
blocks = initial(ours.source.module, [1, 2])
one, other = ours.translate(blocks), theirs.translate(blocks)
assert all(torch.equal(one[name], other[name]) for name in one)
assert theirs.card == ours.card
"""
)


@pytest.fixture
def python(tmp_path: Path) -> Iterator[tuple[Callable[[str], subprocess.CompletedProcess[str]], dict, list[str]]]:
    """Runs code that meets the stand-in alone; with its repositories, and what it was asked."""
    repositories: dict[str, dict[str, bytes]] = {}
    with stand_in.serving(repositories) as (address, asked):

        def run(code: str) -> subprocess.CompletedProcess[str]:
            away = {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1"}
            quiet = {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_TOKEN": "stand-in", "NO_PROXY": "127.0.0.1"}
            return subprocess.run(
                [sys.executable, "-c", code],
                env={**os.environ, **away, **quiet},
                capture_output=True,
                text=True,
                timeout=300,
                check=False,
            )

        yield run, repositories, asked


def test_a_translator_goes_to_a_hub_and_comes_back_the_same_with_its_card(python) -> None:
    run, repositories, asked = python
    pushed = run(PUSH)
    assert pushed.returncode == 0, pushed.stderr
    files = repositories["me/small"]
    assert set(files) == {
        "README.md", "card.json", "translator.json", "translator.safetensors", "translator.safetensors.json"
    }  # fmt: skip
    assert files["README.md"].startswith(b"---\nlibrary_name: paramtrans\n")
    assert b"| translated |" in files["README.md"]
    pulled = run(PULL)
    assert pulled.returncode == 0, pulled.stderr
    assert any(request.endswith("translator.safetensors") for request in asked)


HOSTILE = {
    "pickles alone": {"pytorch_model.bin": b"\x80\x04cos\nsystem\n", "config.json": b"{}"},
    "a description that names code": {"translator.json": b'{"format": 1, "translator": "os:system", "source": "mlp"}'},
    "no JSON": {"translator.json": b"\x80\x04cos\nsystem\n"},
    "a config with surprises": {"config.json": b'{"translator": 3, "card": {"x": 1}}', "translator.json": b"{}"},
}


def test_a_hostile_repository_is_refused_in_a_line(python) -> None:
    run, repositories, asked = python
    names = [f"me/{title.replace(' ', '-')}" for title in HOSTILE]
    repositories.update(zip(names, HOSTILE.values(), strict=True))
    done = run(
        HEADER + f"from paramtrans import ParamtransError\nfor name in {names}:\n"
        "    try: HubTranslator.from_pretrained(name)\n    except ParamtransError as error: print(error)\n"
        '    else: print("taken")'
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == len(names) and "taken" not in done.stdout
    assert not [request for request in asked if request.endswith(".bin")]
