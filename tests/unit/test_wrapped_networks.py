"""Networks and checkpoints as training scripts leave them: wrapped, compiled, scripted, pickled, under other keys."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import paramtrans
from paramtrans.errors import SpecMismatch, StoreError
from paramtrans.networks.loading.parameter_files import read_parameters, with_parameters

ROWS = torch.randn(32, 6)


def mlp() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 3)).eval()


class OptimizedModule(nn.Module):
    """As `torch.compile` makes one, whose import takes seconds."""

    __module__ = "torch._dynamo.eval_frame"

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self._orig_mod = network


def test_the_network_inside_is_translated_and_saved(tmp_path: Path) -> None:
    path, wanted = tmp_path / "small.safetensors", paramtrans.translate(mlp(), calibrate=ROWS)
    for around in (nn.DataParallel, OptimizedModule):
        small = paramtrans.translate(around(mlp()), calibrate=ROWS)
        assert torch.equal(small(ROWS), wanted(ROWS)) and type(small) is nn.Sequential
    paramtrans.save_translated(nn.DataParallel(small), path)
    for untranslated in (mlp(), nn.DataParallel(mlp())):
        assert torch.equal(paramtrans.load_translated(path, untranslated)(ROWS), wanted(ROWS))


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_a_scripted_module_is_named(tmp_path: Path) -> None:
    scripted: Any = torch.jit.script(mlp())
    with pytest.raises(SpecMismatch, match="a scripted module"):
        paramtrans.translate(scripted, calibrate=ROWS)
    scripted.save(str(tmp_path / "x.pt"))
    with pytest.raises(StoreError, match="it is a scripted module"):
        read_parameters(tmp_path / "x.pt")


@pytest.mark.parametrize("name", ["small.pt", "small.pth", "small"])
def test_safetensors_are_written_under_no_other_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(StoreError, match=r"end in \.safetensors"):
        paramtrans.save_translated(paramtrans.translate(mlp(), "prune", calibrate=ROWS), tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_what_a_checkpoint_holds_instead_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    torch.save(mlp(), path)
    with pytest.raises(StoreError, match=r"holds pickled objects: .*container\.Sequential") as caught:
        read_parameters(path)
    assert "\\x1b" not in str(caught.value) and "weights_only" not in str(caught.value)
    torch.save({"epoch": 3, "best": mlp().state_dict()}, path)
    with pytest.raises(StoreError, match=r"no dictionary of tensors, but epoch, best \(if best has them"):
        read_parameters(path)
    torch.save([1, 2], path)
    with pytest.raises(StoreError, match="but a list"):
        read_parameters(path)


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "net", "params", "network", "module", "weights"])
def test_parameters_under_a_key_of_training_scripts_are_taken(tmp_path: Path, key: str) -> None:
    state = {f"module.{name}": tensor for name, tensor in mlp().state_dict().items()}
    torch.save({key: state, "epoch": 3}, tmp_path / "x.pt")
    network = with_parameters(nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 3)), tmp_path / "x.pt")
    assert torch.equal(network(ROWS), mlp()(ROWS))


def test_a_checkpoint_is_no_translated_network(tmp_path: Path) -> None:
    save_file(mlp().state_dict(), tmp_path / "x.safetensors")
    with pytest.raises(
        StoreError, match=r"x\.safetensors\.json: is not there, though .* if paramtrans did not write it"
    ):
        paramtrans.load_translated(tmp_path / "x.safetensors", mlp())


def test_a_translated_network_given_again_is_named(tmp_path: Path) -> None:
    path = tmp_path / "small.safetensors"
    paramtrans.save_translated(paramtrans.translate(mlp(), "prune", calibrate=ROWS), path)
    with pytest.raises(StoreError, match="was translated already; rebuild it"):
        with_parameters(mlp(), path)


class Keeping(nn.Module):
    """Keeps what it computed in a list and a dictionary, as auxiliary losses are kept."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(*(nn.Sequential(nn.Linear(6, 6), nn.Tanh()) for _ in range(2)))
        self.losses: list[Any] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden: torch.Tensor = self.body(x)
        return hidden


@pytest.mark.parametrize("asked", [{}, {"depth": 0.5}])
def test_tensors_of_a_pass_may_be_kept(asked: dict[str, float]) -> None:
    network = Keeping()
    loss = network(ROWS).square().mean()
    network.losses = [loss, {"again": (2 * loss,)}]
    loss.backward()
    small = paramtrans.translate(network, calibrate=ROWS, **asked)
    torch.testing.assert_close(small.losses[1]["again"][0], 2 * loss.detach())
    assert network.losses[0] is loss and loss.grad_fn is not None


def test_what_cannot_be_copied_is_named() -> None:
    network = Keeping()
    network.body[1].lock = threading.Lock()
    with pytest.raises(SpecMismatch, match=r"body\.1: its attribute lock \(lock\) cannot be copied: .*; take it out"):
        paramtrans.translate(network, calibrate=ROWS)


@pytest.mark.parametrize(
    ("asked", "words"),
    [({"sequential": "no"}, "True or False"), ({"finish": True}, "a number of steps"), ({"depth": "half"}, "a share")],
)
def test_an_argument_of_another_kind_is_named(asked: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecMismatch, match=f"^{next(iter(asked))}: takes {words}.*, not "):
        paramtrans.translate(mlp(), calibrate=ROWS, **asked)
