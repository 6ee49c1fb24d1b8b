"""A smaller network as a whole, trained to give what the network gave: the last stage, where it is asked for.

Knowledge distillation (Hinton et al., arXiv 1503.02531) of the outputs as they are, without labels, from a start that
is near already.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from paramtrans.api.options import BaseOptions, validate
from paramtrans.errors import SpecMismatch
from paramtrans.networks.blocks.finding import matches
from paramtrans.networks.forward.activations import Inputs, NamedInputs, call, length, pick_examples
from paramtrans.networks.forward.examples import Examples
from paramtrans.networks.forward.modes import in_eval_mode
from paramtrans.networks.forward.outputs import has_examples, tensors_in
from paramtrans.networks.graph.numbers import uncount
from paramtrans.networks.loading.wrappers import copied
from paramtrans.networks.parts.fitting import Fitted, Fitting, fit
from paramtrans.ops.distances import Variance
from paramtrans.utils import seeds
from paramtrans.utils.precision import widened
from paramtrans.utils.progress import Reporter

BYTES_HELD = 2**30
"""Outputs of the untouched network beyond this size are computed anew at each step."""


class FinishOptions(BaseOptions):
    """Steps on all that a translation changed, together, to make the network give what it gave."""

    steps: PositiveInt = 300
    """Adam steps."""
    lr: PositiveFloat = 0.01
    """Learning rate at the start, in root mean squares of each tensor; it falls to zero along a cosine."""
    batch: PositiveInt = 64
    """Examples in a step."""
    exchange: float = Field(0, ge=0, lt=1)
    """Of integer inputs (tokens) this share of the positions takes another example's value, in half of the examples of
    a step: further inputs, where few are at hand. What the network gives for them is computed in each step."""
    at: str = ""
    """Patterns of the paths of modules, between commas, whose outputs are to be what they were too, each as much as one
    of the network's own (FitNets, Romero et al., arXiv 1412.6550)."""


def finish_options(given: int | Mapping[str, Any] | None) -> FinishOptions | None:
    """The options that a number of steps, or a mapping, stands for; None where nothing is to be done.

    Raises:
        ConfigError: they are wrong.
    """
    if given is None:
        return None
    return validate(FinishOptions, {"steps": given} if isinstance(given, int) else dict(given), "finish: ")


def finish_network(
    options: FinishOptions | None,
    network: nn.Module,
    smaller: nn.Module,
    batches: Iterable[Inputs],
    seed: int,
    reporter: Reporter,
) -> Fitted | None:
    """Fit what was translated, all of it together, to what the network gave.

    Args:
        options: How many steps, how large; with None nothing is done.
        network: The untouched network, in eval mode.
        smaller: Its parameters that `network` does not have are changed, or all where blocks were left out alone.
        batches: Calibration inputs. One in eight says when to stop, another one how good it is.
        seed: Draws the examples of each step.
        reporter: Shows the progress.

    Returns:
        Mean squared error of the outputs over their variance, before and after, on examples that no step used.

    Raises:
        SpecMismatch: there are no inputs, or the networks give no values that can be compared.
    """
    if options is None:
        return None
    examples = Examples(list(batches))
    if not examples.total:
        raise SpecMismatch(
            "finish: give a few dozen unlabelled inputs (calibrate); what the network gives for them is due"
        )
    before = copied(smaller, share=True)
    with in_eval_mode(smaller):
        fitted = _fitted(network, smaller, examples, options, seed, reporter)
    uncount(before, smaller, smaller)
    return fitted


def _fitted(
    network: nn.Module, smaller: nn.Module, examples: Examples, options: FinishOptions, seed: int, reporter: Reporter
) -> Fitted:
    watched = _Watched(options.at, network, smaller)
    outputs = _Outputs(watched, network, smaller, examples)

    generator = torch.Generator().manual_seed(seeds.derive(seed, "exchange"))

    def loss_of(number: int, chosen: Tensor) -> Tensor:
        inputs = pick_examples(outputs.batches[number], chosen)
        if options.exchange and torch.is_grad_enabled():  # in steps; they are judged by inputs as they are
            inputs = exchanged(inputs, options.exchange, generator)
            expected_values = outputs.of_inputs(inputs)
        else:
            expected_values = outputs.of(number, chosen)
        pairs = zip(watched.values(smaller, inputs), expected_values, outputs.variances, strict=True)
        errors = [
            (widened(output) - widened(expected)).square().mean() / variance for output, expected, variance in pairs
        ]
        return torch.stack(errors).mean()

    settings = Fitting(options.steps, options.lr, options.batch, seeds.derive(seed, "finish"))
    with reporter.stage("fitting the network's outputs", options.steps) as stage:

        def advance(steps: int, loss: float) -> None:
            stage.advance(steps, note=f"error {loss:.4f}")

        tensors = changed_parameters(network, smaller) or [p for p in smaller.parameters() if p.is_floating_point()]
        return fit(tensors, loss_of, examples, settings, advance)


def exchanged(inputs: Inputs, share: float, generator: torch.Generator) -> Inputs:
    """Inputs in half of which some values are those of other examples, at the same position.

    Args:
        inputs: A batch; tensors of floating point stay as they are.
        share: Of the positions, in the examples where there is any exchange.
        generator: Draws both.
    """

    def mixed(tensor: Any) -> Any:
        if not isinstance(tensor, Tensor) or tensor.is_floating_point() or tensor.ndim < 2:
            return tensor
        others = torch.rand(tensor.shape, generator=generator).argsort(0).to(tensor.device)
        here = torch.rand(tensor.shape, generator=generator) < share
        here &= torch.rand(len(tensor), *[1] * (tensor.ndim - 1), generator=generator) < 0.5
        return torch.where(here.to(tensor.device), tensor.gather(0, others), tensor)

    if isinstance(inputs, NamedInputs):  # of these it is known what has an entry for each example
        examples = {name: mixed(value) if name in inputs.per_example else value for name, value in inputs.items()}
        return NamedInputs(examples, inputs.per_example)
    mixed_inputs: Inputs = tree_map(mixed, inputs)
    return mixed_inputs


def changed_parameters(network: nn.Module, smaller: nn.Module) -> list[nn.Parameter]:
    """Parameters of floating point of a translated network with values that the untouched one has nowhere.

    Args:
        network: The untouched network.
        smaller: The translated one.
    """
    alike: dict[torch.Size, list[Tensor]] = {}
    for original in network.parameters():
        alike.setdefault(original.shape, []).append(original)
    parameters = [parameter for parameter in smaller.parameters() if parameter.is_floating_point()]
    return [p for p in parameters if not any(torch.equal(p, original) for original in alike.get(p.shape, ()))]


class _Watched:
    """What is compared of two networks: their outputs, and those of some modules of both."""

    def __init__(self, patterns: str, network: nn.Module, smaller: nn.Module) -> None:
        paths = [path for path, _ in network.named_modules() if path and matches(path, patterns)]
        if patterns and not paths:
            raise SpecMismatch(f'finish.at: no module has a path that matches "{patterns}"')
        missing = {*paths} - {path for path, _ in smaller.named_modules()}
        if missing:
            raise SpecMismatch(f"finish.at: the smaller network has no {min(missing)}; name modules that both have")
        self.paths = paths

    def values(self, network: nn.Module, inputs: Inputs) -> list[Tensor]:
        """What one of the networks gives: floating-point tensors, in one order."""
        given: dict[str, list[Tensor]] = {}

        def keep(path: str, output: Any) -> None:
            given[path] = _values(output)[:1]

        handles = [
            network.get_submodule(path).register_forward_hook(lambda _, __, output, path=path: keep(path, output))
            for path in self.paths
        ]
        try:
            outputs = _values(call(network, inputs))
        finally:
            for handle in handles:
                handle.remove()
        return outputs + [tensor for path in self.paths for tensor in given.get(path, [])]


class _Outputs:
    """What the untouched network gives for the examples, held where it is not too much."""

    def __init__(self, watched: _Watched, network: nn.Module, smaller: nn.Module, examples: Examples) -> None:
        self.watched, self.network, self.batches = watched, network, list(examples.batches)
        with torch.no_grad():
            shapes = [[value.shape for value in watched.values(side, self.batches[0])] for side in (network, smaller)]
        if shapes[0] != shapes[1] or not shapes[0]:
            raise SpecMismatch(
                "finish: the smaller network does not give outputs like the network's"
                + (f', or modules of "{", ".join(watched.paths[:3])}" do not' if watched.paths else "")
            )
        self._held: dict[int, list[Tensor]] = {}
        room, spreads = BYTES_HELD, [Variance() for _ in shapes[0]]
        for number, batch in enumerate(self.batches):
            values = self.of_inputs(batch)
            for spread, value in zip(spreads, values, strict=True):
                spread.add(value)
            room -= sum(value.nbytes for value in values)
            if room >= 0 and all(has_examples(value, length(batch)) for value in values):
                self._held[number] = values
        self.variances = [spread.scale for spread in spreads]
        """Of each output around the mean of each channel, over all examples."""

    def of(self, number: int, chosen: Tensor) -> list[Tensor]:
        """The outputs for some examples of a batch."""
        if number in self._held:
            return [value[chosen] for value in self._held[number]]
        return self.of_inputs(pick_examples(self.batches[number], chosen))

    @torch.no_grad()
    def of_inputs(self, batch: Inputs) -> list[Tensor]:
        """The outputs for a batch of inputs."""
        return self.watched.values(self.network, batch)


def _values(output: Any) -> list[Tensor]:
    return [tensor for tensor in tensors_in(output) if tensor.is_floating_point()]
