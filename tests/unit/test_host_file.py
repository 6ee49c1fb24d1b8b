"""Report hosts from a file: whole ones are taken as they are, anything else is told with what to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from paramtrans.config import Config
from paramtrans.errors import StoreError
from paramtrans.plugins import Plugins
from paramtrans.runs.planner import plan
from paramtrans.runs.run import Run, run
from paramtrans.storage import files, sealed_params
from paramtrans.utils.progress import Reporter
from paramtrans.zoo import host_training

pytestmark = pytest.mark.pipeline

Make = Callable[..., Config]
ALONE = ("zoo.pairs=0", "training.epochs=1", 'evaluation.rivals=["zero_block"]')


@pytest.fixture
def finished(tiny_config: Make, tiny_plugins: Plugins, tmp_path: Path) -> dict[str, torch.Tensor]:
    """The report hosts of a run, with their targets, as another would have written them."""
    result = run(tiny_config(*ALONE, dir=tmp_path / "first"), loaded=tiny_plugins)
    [hosts] = (tmp_path / "cache").glob("zoos/*/hosts/report-*.safetensors")
    [targets] = (tmp_path / "cache").glob("zoos/*/targets/*/report-*.safetensors")
    assert result.methods["source"]["n"] == 3
    return sealed_params.load_params(hosts)[0] | sealed_params.load_params(targets)[0]


def test_hosts_of_a_file_are_reported_as_those_that_were_trained(
    finished: dict[str, torch.Tensor], tiny_config: Make, tiny_plugins: Plugins, tmp_path: Path
) -> None:
    save_file(finished, tmp_path / "hosts.safetensors")
    given = tiny_config(*ALONE, f"zoo.report_from={tmp_path / 'hosts.safetensors'}", dir=tmp_path / "second")
    [hosts] = (tmp_path / "cache").glob("zoos/*/hosts")
    [targets] = (tmp_path / "cache").glob("zoos/*/targets/*")
    digest = files.checksum(tmp_path / "hosts.safetensors")[:16]
    folders = [step / given for step in (hosts, targets) for given in (digest, "of-another-file")]
    begun = [folder / f".report.{'0' * 32}" for folder in folders]
    for path in begun:
        files.write_bytes(path, b"half of what a killed process wrote")
    result = run(given, loaded=tiny_plugins)
    assert not any(path.exists() for path in begun) and list((hosts / digest).glob("report-*.safetensors"))
    trained = run(tiny_config(*ALONE, dir=tmp_path / "first"), loaded=tiny_plugins)
    for method in ("source", "trained_target", "zero_block", "translated"):
        assert result.evaluation.hosts.accuracies[method] == trained.evaluation.hosts.accuracies[method]
    assert result.evaluation.seconds_per_host["trained_target"] is None


def test_given_hosts_are_not_planned_to_be_trained(
    finished: dict[str, torch.Tensor], tiny_config: Make, tiny_plugins: Plugins, tmp_path: Path
) -> None:
    save_file(finished, tmp_path / "hosts.safetensors")
    settings = (*ALONE, f"zoo.report_from={tmp_path / 'hosts.safetensors'}", f"run.cache={tmp_path / 'another'}")
    planned = plan(Run(tiny_config(*settings, dir=tmp_path / "second"), "tiny", Reporter(), tiny_plugins))
    assert planned.hosts["report"] == 3 and planned.targets_to_train == 0
    assert planned.hosts["to_train"] == planned.hosts["train"] + planned.hosts["select"] > 0


def test_targets_are_trained_where_the_file_has_none_of_this_kind(
    finished: dict[str, torch.Tensor],
    tiny_config: Make,
    tiny_plugins: Plugins,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    save_file({k: t for k, t in finished.items() if not k.startswith("target.")}, tmp_path / "hosts.safetensors")
    given = tiny_config(*ALONE, f"zoo.report_from={tmp_path / 'hosts.safetensors'}", dir=tmp_path / "second")
    monkeypatch.setattr(host_training, "train_hosts", lambda *args, **options: pytest.fail("all hosts are there"))
    result = run(given, loaded=tiny_plugins)
    trained = run(tiny_config(*ALONE, dir=tmp_path / "first"), loaded=tiny_plugins)
    target = "trained_target"
    assert result.evaluation.hosts.accuracies[target] == trained.evaluation.hosts.accuracies[target]


CHANGES: dict[str, tuple[Callable[[dict[str, torch.Tensor]], object], str]] = {
    "a tensor less": (lambda t: t.pop("former.0.weight"), "lacks former.0.weight"),
    "a tensor more": (lambda t: t.update(extra=torch.zeros(3)), "holds extra, which"),
    "another shape": (
        lambda t: t.update({"latter.1.bias": torch.zeros(3, 7)}),
        r"latter\.1\.bias is torch\.float32 of sh",
    ),
    "another type": (lambda t: t.update({"latter.1.bias": torch.zeros(3, 4).double()}), r"is torch\.float64 of shape"),
    "hosts that differ in number": (lambda t: t.update({"target.x": torch.zeros(2, 7)}), r"target\.x is"),
    "too few hosts": (lambda t: t.update({k: v[:2] for k, v in t.items()}), "has 2 hosts; zoo.report asks for 3"),
    "no host": (lambda t: t.clear(), "lacks"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_does_not_fit_is_told_before_anything_is_trained(
    change: str,
    finished: dict[str, torch.Tensor],
    tiny_config: Make,
    tiny_plugins: Plugins,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    how, match = CHANGES[change]
    how(finished)
    save_file(finished, tmp_path / "hosts.safetensors")
    monkeypatch.setattr("paramtrans_executors.local.do_job", lambda job, report: pytest.fail("too late"))
    given = tiny_config(*ALONE, f"zoo.report_from={tmp_path / 'hosts.safetensors'}", dir=tmp_path / "second")
    with pytest.raises(StoreError, match=rf"hosts\.safetensors: .*{match}"):
        run(given, loaded=tiny_plugins)
    assert not (tmp_path / "second").exists()


@pytest.mark.parametrize(("content", "match"), [(None, "cannot be read"), (b"{}", "not a safetensors file")])
def test_what_is_no_host_file_is_told(
    content: bytes | None, match: str, tiny_config: Make, tiny_plugins: Plugins, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / "hosts.safetensors").write_bytes(content)
    with pytest.raises(StoreError, match=match):
        run(tiny_config(*ALONE, f"zoo.report_from={tmp_path / 'hosts.safetensors'}"), loaded=tiny_plugins)
