"""Translators that go on from a block of another architecture, as they do from units: by its piece of the network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from paramtrans.api.units import Entered, UnitPiece
from paramtrans.errors import SpecMismatch
from paramtrans.networks.forward.examples import Examples
from paramtrans.networks.graph.adjust import AT_ONCE, write_piece
from paramtrans.networks.units.chain import Named, UnitStep, step_of
from paramtrans.plugins.registry import Registry
from paramtrans.utils import seeds


def steps_behind(named: Named, registry: Registry) -> list[UnitStep]:
    """The translators that these names stand for, each of which can go on from a block.

    Args:
        named: Translators as a user names them, each with its options.
        registry: The plugins that translators come from.

    Raises:
        SpecMismatch: one of them goes on from no block.
        ConfigError: there is none of its name, or its options are wrong.
    """
    for name, _ in named:
        registry.load("translator", name)  # which says what there is, where there is none of this name
    steps = [step_of(name, options, registry) for name, options in named]
    for step in steps:
        if not step.component.adjusts_units:
            usable = registry.usable("translator")
            fitting = [name for name, component in usable if component.adjusts_units]
            raise SpecMismatch(
                f"then: {step.name} goes on from no block of another architecture; {', '.join(fitting) or 'none'} can"
            )
    return steps


def go_on_from(
    block: nn.Module,
    path: str,
    features: tuple[Sequence[Tensor], Sequence[Tensor]],
    examples: Examples,
    steps: Sequence[UnitStep],
    seed: int,
) -> None:
    """Let translators go on from a block, one after the other.

    Args:
        block: Is changed.
        path: Of the part that it takes the place of.
        features: What enters it in the smaller network, and what left the part in the untouched one: `[n, ...]` for
            each batch.
        examples: The inputs in batches; nothing is fitted to those kept aside.
        steps: The translators.
        seed: For whatever is drawn.

    Raises:
        SpecMismatch: a translator wrote tensors of another shape, or values that are not finite.
    """

    def run(params: Mapping[str, Tensor], entered: Entered) -> tuple[Tensor, ...]:
        return (functional_call(block, dict(params), tuple(entered)),)

    params = dict(block.named_parameters())
    for number, step in enumerate(steps):
        values = {name: tensor.detach() for name, tensor in params.items()}
        batches = _Batches(*features, examples, getattr(step.options, "batch", AT_ONCE))
        piece = UnitPiece(path, values, run, batches, seeds.derive(seed, "translator", number))
        with torch.enable_grad():
            written = step.component.adjust(step.options, piece)
        write_piece(params, piece, written)


@dataclass(frozen=True)
class _Batches:
    """What enters a block and what is to leave it, of the examples that may be fitted to."""

    entering: Sequence[Tensor]
    leaving: Sequence[Tensor]
    examples: Examples
    at_once: int

    def __iter__(self) -> Iterator[tuple[Entered, tuple[Tensor, ...]]]:
        fitted = ~self.examples.aside(torch.arange(self.examples.total))
        of_batches = fitted.split(list(self.examples.sizes))
        for entering, leaving, of_batch in zip(self.entering, self.leaving, of_batches, strict=True):
            for chosen in of_batch.nonzero()[:, 0].split(self.at_once):
                if len(chosen):
                    yield (entering[chosen],), (leaving[chosen],)
