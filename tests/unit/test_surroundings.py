"""The caller's torch state, folder and random numbers are neither what results depend on nor changed by us."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import paramtrans
from paramtrans import config, load_translator, run
from paramtrans.plugins import Plugins
from paramtrans.utils.surroundings import pinned
from tests.support import warm


@contextmanager
def default_type(kind: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(kind)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


AROUND: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "meta": lambda: torch.device("meta"),
    "inference mode": torch.inference_mode,
    "no grad": torch.no_grad,
    "bfloat16": lambda: default_type(torch.bfloat16),
    "float64": lambda: default_type(torch.float64),
}


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3)).eval()


@pytest.mark.parametrize("around", AROUND)
def test_a_translation_is_the_same_whatever_torch_is_set_to(around: str) -> None:
    large, inputs = network(), torch.randn(24, 6, generator=torch.Generator().manual_seed(1))
    wanted = paramtrans.translate(large, calibrate=inputs).state_dict()
    with AROUND[around]():
        small = paramtrans.translate(large, calibrate=inputs)
    assert all(torch.equal(small.state_dict()[name], tensor) for name, tensor in wanted.items())
    small(inputs).sum().backward()
    assert all(parameter.grad is not None for parameter in small.parameters())


@pytest.mark.parametrize("around", AROUND)
def test_a_loaded_translator_is_the_same_and_can_be_trained(around: str) -> None:
    wanted = load_translator("mnist_conv_to_conv").state_dict()
    with AROUND[around]():
        loaded = load_translator("mnist_conv_to_conv")
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in loaded.state_dict().items())
    assert not any(parameter.is_inference() for parameter in loaded.parameters())


@pytest.mark.parametrize("around", ["autocast", "no grad"])
def test_weights_that_change_count_in_the_next_products_in_half_precision(around: str) -> None:
    layer, inputs, outputs = nn.Linear(4, 2), torch.ones(3, 4), []
    with AROUND[around](), pinned(), torch.enable_grad():
        for _ in range(2):
            with torch.autocast("cpu", torch.bfloat16):
                outputs.append(layer(inputs).detach())
            layer.weight.data.add_(1)
    torch.testing.assert_close(outputs[1] - outputs[0], torch.full((3, 2), 4.0).bfloat16(), rtol=0.02, atol=0.05)


def test_the_cache_of_autocast_is_as_before() -> None:
    for enabled in (True, False):
        torch.set_autocast_cache_enabled(enabled)
        with pinned():
            assert not torch.is_autocast_cache_enabled()
        assert torch.is_autocast_cache_enabled() == enabled
    torch.set_autocast_cache_enabled(True)


def test_what_the_caller_draws_goes_on_as_if_nothing_had_been() -> None:
    torch.manual_seed(3)
    wanted = torch.rand(4)
    torch.manual_seed(3)
    paramtrans.translate(network_without_seed(), calibrate=torch.ones(8, 6))
    load_translator("mnist_conv_to_conv")
    assert torch.equal(torch.rand(4), wanted)


def network_without_seed() -> nn.Module:
    with torch.random.fork_rng():
        return network()


def test_all_is_restored_also_after_an_error(tmp_path: Path) -> None:
    before = os.getcwd(), torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_default_device()
    with pytest.raises(ValueError), pinned():
        os.chdir(tmp_path)
        torch.set_default_dtype(torch.float16)
        torch.set_grad_enabled(False)
        torch.set_default_device("meta")
        raise ValueError
    assert (os.getcwd(), torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_default_device()) == before


RUDE = """
import os, tempfile
import torch
from paramtrans import hookimpl

def rude(**arguments):
    os.chdir(tempfile.gettempdir())
    torch.set_default_dtype(torch.float64)
    for each in arguments.values():
        if isinstance(each, dict):
            each.clear()

@hookimpl
def paramtrans_run_started(run):
    rude(config=run.config)

@hookimpl
def paramtrans_epoch_ended(run, epoch, metrics):
    rude(config=run.config, metrics=metrics)

@hookimpl
def paramtrans_run_finished(run, result):
    rude(config=run.config, result=result)
"""


@pytest.mark.thorough
def test_hooks_get_copies_and_what_they_set_is_restored(
    tiny_plugins: Plugins, support: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = ["zoo.train=3", "zoo.report=2", "training.epochs=2", "run.device=cpu"]
    settled = config.load(support / "tiny.toml", tiny_plugins.registry(), settings)
    wanted = run(settled, "quiet", loaded=tiny_plugins)
    (tmp_path / "rude.py").write_text(RUDE)
    tiny_plugins.load_file(tmp_path / "rude.py")
    result = run(settled, "rude", loaded=tiny_plugins)
    assert result.dir.resolve() == tmp_path / "runs" / "rude" and os.getcwd() == str(tmp_path)
    assert result.methods["translated"] == wanted.methods["translated"]
    assert torch.get_default_dtype() == torch.float32


@pytest.mark.thorough
def test_runs_in_two_threads_take_turns(
    tiny_plugins: Plugins, support: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ["zoo.train=3", "zoo.report=2", "training.epochs=1", "run.device=cpu"]
    configs = [
        config.load(support / "tiny.toml", tiny_plugins.registry(), [*settings, f"run.dir={tmp_path / name}"])
        for name in ("one", "other")
    ]
    results: list[Any] = []
    threads = [
        threading.Thread(target=lambda c=config_: results.append(run(c, loaded=tiny_plugins))) for config_ in configs
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 2 and results[0].methods["translated"] == results[1].methods["translated"]


def test_torch_gives_no_advice_that_nobody_can_follow() -> None:
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 8}
    bert = transformers.BertModel(transformers.BertConfig(vocab_size=20, **sizes)).eval()
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        paramtrans.translate(bert, blocks="*attention*", calibrate={"input_ids": torch.randint(20, (32, 6))})
    assert [str(warning.message) for warning in shown if "batching rule" in str(warning.message)] == []


@pytest.mark.thorough
def test_quiet_hides_the_warnings_of_other_libraries_too(tmp_path: Path) -> None:
    plugin = tmp_path / "chatter.py"
    plugin.write_text("import warnings\nwarnings.warn('chatter')\n")
    for quiet, heard in ([], True), (["--quiet"], False):
        command = ["-m", "paramtrans.cli.main", "check", "nothing", *quiet, "--plugin", str(plugin)]
        done = warm.python(command, dict(os.environ), tmp_path, timeout=100)
        assert ("chatter" in done.stderr) is heard
