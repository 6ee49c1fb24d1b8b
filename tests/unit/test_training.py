"""Options of training that change how a step is computed, not what it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from paramtrans.api.stacking import Params
from paramtrans.config import Config
from paramtrans.errors import ConfigError
from paramtrans.plugins import Plugins
from paramtrans.runs.run import Run
from paramtrans.training.trainer import Trainer
from paramtrans.translators.base import LearnedTranslator
from paramtrans.utils.distributed import ProcessGroup, cut
from paramtrans.utils.progress import Reporter
from paramtrans.utils.surroundings import pinned

Make = Callable[..., Config]
HOSTS = 6
PLAIN = ("translator.dropout=0", f"zoo.train={HOSTS}", "training.batch_size=4")
FUNCTIONAL = 'objectives=[{name="functional", examples=4}]'
EQUIVARIANT = 'translator={name="equivariant", layers=1, width=8, heads=2, probes=2, input=[1, 8, 8], rounds=2}'


@pytest.fixture
def trained(tiny_config: Make, tiny_plugins: Plugins) -> Callable[..., tuple[list[float], Params]]:
    """Losses and weights after four steps, of four hosts and of two, on barely trained hosts."""
    from paramtrans.zoo.timing import Trial

    def train(*settings: str) -> tuple[list[float], Params]:
        run_ = Run(tiny_config(*PLAIN, *settings), "run", Reporter(), tiny_plugins)
        run_.builder.task.prepare(run_.cache)
        hosts = Trial(run_.builder, HOSTS).stack
        trainer = Trainer(run_.builder, run_.builder.translator(0), hosts, hosts, Path())
        trainer.translator.train()
        generator = torch.Generator().manual_seed(0)
        chosen = [[0, 1, 2, 3], [4, 5]]
        losses = [trainer.step(chosen[number % 2], generator).item() for number in range(4)]
        return losses, trainer.translator.state_dict()

    return train


def close(first: tuple[list[float], Params], second: tuple[list[float], Params], tolerance: float) -> None:
    assert second[0] == pytest.approx(first[0], rel=tolerance)
    for name, tensor in first[1].items():
        torch.testing.assert_close(second[1][name], tensor, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("pieces", [2, 3, 100])
@pytest.mark.parametrize("objective", ['{name="functional", examples=4}', '{name="mse"}'])
def test_a_step_in_slices_is_the_same_step(trained: Any, pieces: int, objective: str) -> None:
    objectives = f"objectives=[{objective}]"
    close(trained(objectives), trained(objectives, f"training.accumulate={pieces}"), 1e-4)


class Two(ProcessGroup):
    """As if another process had an empty share in every step."""

    def share(self, count: int) -> range:
        return range(count)

    def add(self, tensors: Sequence[Tensor]) -> None:
        self.added = len(tensors)


def test_weights_of_families_that_a_step_is_not_about_stay_in_every_process(
    trained: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    families = (EQUIVARIANT, 'training.targets=[{name="mlp", channels=4, hidden=3}]', FUNCTIONAL)
    alone = trained(*families)
    monkeypatch.setattr("paramtrans.training.trainer.ProcessGroup", lambda: Two(0, 2))
    close(alone, trained(*families), 0)


@pytest.mark.parametrize("translator", [None, EQUIVARIANT], ids=["mixer", "equivariant"])
def test_bf16_is_the_same_but_for_rounding_and_keeps_weights_in_float32(trained: Any, translator: str | None) -> None:
    settings = [translator] if translator else []
    with pinned():  # as in a run
        whole, half = trained(*settings), trained(*settings, 'training.precision="bf16"')
    assert half[0] == pytest.approx(whole[0], rel=0.05)
    assert half[0] != whole[0]
    assert {tensor.dtype for tensor in half[1].values() if tensor.is_floating_point()} == {torch.float32}


@pytest.mark.thorough
def test_a_compiled_translator_learns_the_same(trained: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced as it always is; without the C++ compiler behind that, which takes minutes."""
    real, compiled = nn.Module.compile, []
    plain = trained()

    def trace(self: nn.Module, *args: Any, **options: Any) -> None:
        compiled.append(self)
        real(self, *args, **{**options, "backend": "eager"})

    monkeypatch.setattr(nn.Module, "compile", trace)
    close(plain, trained("training.compile=true"), 1e-4)
    assert len(compiled) == 1


def test_a_translator_that_cannot_be_compiled_is_told(trained: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._dynamo.exc import TorchDynamoException

    def fail(*args: object) -> None:
        raise TorchDynamoException("no compiler\nand much more")

    monkeypatch.setattr(nn.Module, "compile", lambda self, *args, **options: setattr(self, "_compiled_call_impl", fail))
    with pytest.raises(ConfigError, match=r"^training\.compile: .*no compiler.*false$"):  # and not its further lines
        trained("training.compile=true")


def test_an_error_of_the_translator_itself_stays_what_it_is(trained: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: LearnedTranslator, *args: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr("paramtrans.translators.base.TokenTranslator.forward", fail)
    with pytest.raises(RuntimeError, match="a defect"):
        trained()


@pytest.mark.parametrize(("count", "parts"), [(0, 2), (1, 2), (5, 2), (6, 3), (2, 5)])
def test_shares_are_as_even_as_may_be_and_leave_nothing_out(count: int, parts: int) -> None:
    shares = cut(count, parts)
    assert [i for share in shares for i in share] == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
