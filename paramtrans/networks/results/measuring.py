"""What a translation lost: measured on inputs that nothing was fitted to, with labels where there are any."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from paramtrans.errors import DataError
from paramtrans.evaluation.costs import operations, parameters
from paramtrans.evaluation.footprint import latencies, peak_memory
from paramtrans.networks.files import ATTRIBUTE
from paramtrans.networks.forward.activations import Inputs, call, first_examples, in_batches, length, pick_examples
from paramtrans.networks.forward.batches import as_taken
from paramtrans.networks.forward.examples import Examples
from paramtrans.networks.forward.modes import in_eval_mode
from paramtrans.networks.forward.outputs import first_output, named_outputs, tensors_in
from paramtrans.networks.forward.programs import fixed_size
from paramtrans.networks.losses import Accuracy, Costs, Kind, Losses, Share
from paramtrans.networks.results.predictions import Predictions, predicted_classes
from paramtrans.ops.distances import RelativeError
from paramtrans.ops.statistics import Estimate, paired_change, share
from paramtrans.utils.boundary import reason

MUCH = 0.05
"""Accuracy that is certainly expected to be lost, from which on it is warned of."""
OUTPUT_BYTES = 2**26
"""Of what a network gives that is held at once, about."""

log = logging.getLogger(__name__)


def measure_losses(
    before: nn.Module,
    after: nn.Module,
    inputs: Iterable[Inputs] | Tensor | Mapping[str, Any] = (),
    *,
    predicts: Kind | None = None,
    evaluate: Iterable[tuple[Inputs, Tensor]] = (),
) -> Losses:
    """What a network lost by a translation, both in eval mode; training flags are as before afterwards.

    Args:
        before: The untouched network.
        after: What `translate` made of it.
        inputs: What it was calibrated with; the same part of it as then is kept aside for this.
        predicts: What the first output is: class `scores` (on axis 1), scores of the next token (`tokens`, on the last
            axis), an `embedding` on the last axis, or other `values`; by default what shapes and values say.
        evaluate: Batches of inputs and their labels; classes are on axis 1 of the first output, or on the last where
            labels say so.

    Returns:
        Errors, agreement, the change of accuracy that is expected, and costs before and after; what could not be
        measured is None.

    Raises:
        DataError: labels do not go with what the network gives, or errors are no finite numbers.
    """
    with torch.no_grad(), in_eval_mode(before, after):
        losses = _measured(before, after, inputs, predicts, evaluate)
    _warn(losses)
    return losses


def _measured(
    before: nn.Module,
    after: nn.Module,
    inputs: Iterable[Inputs] | Tensor | Mapping[str, Any],
    predicts: Kind | None,
    evaluate: Iterable[tuple[Inputs, Tensor]],
) -> Losses:
    """What `measure_losses` says of networks in eval mode."""
    examples = Examples(as_taken(before, in_batches(inputs), tell=False))
    costs = _costs(before, after, next(iter(examples.batches), None))
    blocks = getattr(after, ATTRIBUTE, ())
    measures: dict[str, Any] = {"before": costs[0], "after": costs[1]}
    measures["blocks"] = {block.path: block.feature_error for block in blocks}
    if examples.total:
        measures |= _compared(before, after, examples.held_out(), predicts)
        held_out_flags = [block.held_out for block in blocks if block.held_out is not None]
        measures["held_out"] = all(held_out_flags) if held_out_flags else examples.enough
    _check_finite({f"output {name}".rstrip(): error for name, error in measures.get("outputs", {}).items()})
    _check_finite(measures["blocks"])
    return Losses(**measures, accuracy=measure_accuracy(before, after, evaluate))


def _warn(losses: Losses) -> None:
    """Say where accuracy is expected to fall, unless labels say by how much."""
    change = losses.expected_change
    if change is not None and losses.accuracy is None and change.ci95[1] < -MUCH:
        log.warning(
            "accuracy is expected to fall by %.0f points or more: keep more units, give more inputs, or let another "
            "translator go on (then)",
            -100 * change.ci95[1],
        )


def _check_finite(errors: Mapping[str, float | None]) -> None:
    """Raise `DataError` where the inputs lead out of the finite numbers, so that no error says anything."""
    wrong = [path or "the network" for path, error in errors.items() if error is not None and not math.isfinite(error)]
    if wrong:
        raise DataError(
            f"{', '.join(wrong)}: the features on the calibration inputs are too large for their precision, so that "
            "errors are no finite numbers; scale the inputs as in training"
        )


def _check_stays_finite(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> None:
    """Raise `DataError` where the smaller network alone leaves the finite numbers: what was written is at fault."""
    if all(tensor.isfinite().all() for tensor in before.values()):
        for name, tensor in after.items():
            if not tensor.isfinite().all():
                raise DataError(
                    f"{f'output {name}'.rstrip()}: the translated network gives numbers that are not finite where the "
                    "untouched one does not; a translator, or the block of an adapter, is at fault: try another"
                )


def _compared(before: nn.Module, after: nn.Module, batches: Iterable[Inputs], predicts: Kind | None) -> dict[str, Any]:
    """What both networks give, compared."""
    errors: dict[str, RelativeError] = {}
    predictions: Predictions | None = None
    count = 0
    for batch in _bounded(before, batches):
        original_outputs, smaller_outputs = (named_outputs(call(network, batch)) for network in (before, after))
        _check_stays_finite(original_outputs, smaller_outputs)
        for name, tensor in original_outputs.items():
            if name in smaller_outputs and smaller_outputs[name].shape == tensor.shape:
                errors.setdefault(name, RelativeError()).add(smaller_outputs[name], tensor)
        first = first_output(original_outputs, length(batch))
        output_name = next((name for name, tensor in original_outputs.items() if tensor is first), None)
        if output_name is None or output_name not in errors:
            continue
        count += len(original_outputs[output_name])
        if predictions is None:
            predictions = Predictions.of(before, batch, original_outputs[output_name], predicts)
        predictions.add(batch, original_outputs[output_name], smaller_outputs[output_name])
    output_errors = {name: error.value for name, error in errors.items() if error.value is not None}
    return {"examples": count, "outputs": output_errors, **(predictions.measures() if predictions else {})}


def _bounded(network: nn.Module, batches: Iterable[Inputs]) -> Iterator[Inputs]:
    """Batches with so few examples that what a network gives for them needs little memory, such as scores of tokens."""
    most: int | None = None
    for batch in batches:
        size = length(batch)
        if most is None and size > 1 and fixed_size(network) is None:
            of_one = tensors_in(call(network, first_examples(batch, 1)))
            most = max(1, OUTPUT_BYTES // max(1, sum(tensor.nbytes for tensor in of_one)))
        if most is None or size <= most:
            yield batch
            continue
        yield from (pick_examples(batch, slice(start, start + most)) for start in range(0, size, most))


def _costs(before: nn.Module, after: nn.Module, batch: Inputs | None) -> tuple[Costs, Costs]:
    """What both networks cost, for one example of a batch."""
    networks = {"before": before, "after": after}
    figures: dict[str, dict[str, Any]] = {
        name: {"parameters": parameters(network), "bytes": sum(t.nbytes for t in network.state_dict().values())}
        for name, network in networks.items()
    }
    if batch is not None:
        example = first_examples(batch, 1)
        runs = {name: partial(call, network, example) for name, network in networks.items()}
        milliseconds = latencies(runs)
        for name, network in networks.items():
            figures[name] |= {
                "flops": operations(runs[name], f"the network {name}"),
                "latency_ms": milliseconds[name],
                "peak_bytes": _peak(network, runs[name]),
            }
    return Costs(**figures["before"]), Costs(**figures["after"])


def _peak(network: nn.Module, run: Any) -> int | None:
    try:
        return peak_memory(network, run)
    except (RuntimeError, NotImplementedError, TypeError) as error:
        log.warning("its peak memory is left out, as it cannot be counted: %s", reason(error))
        return None


@torch.no_grad()
def measure_accuracy(before: nn.Module, after: nn.Module, batches: Iterable[tuple[Inputs, Tensor]]) -> Accuracy | None:
    """How many predictions are the label, before and after.

    Args:
        before: The untouched network, in eval mode.
        after: The smaller one.
        batches: Inputs and their labels.

    Returns:
        Shares with intervals; None without labels.

    Raises:
        DataError: a network does not take the inputs, or labels do not go with what it gives.
    """
    correct: tuple[list[Tensor], list[Tensor]] = ([], [])
    for pair in batches:
        if not isinstance(pair, tuple | list) or len(pair) != 2 or not isinstance(pair[1], Tensor):
            raise DataError("evaluate: takes a list of pairs of inputs and their labels, as in [(images, labels)]")
        batch, labels = pair
        for network, hits in zip((before, after), correct, strict=True):
            scores = first_output(call(network, batch), length(batch))
            if scores is None:
                raise DataError("evaluate: the network gives no scores to hold labels to")
            hits.append((predicted_classes(scores, labels) == labels.to(scores.device)).flatten().cpu())
    if not correct[0]:
        return None
    old, new = (torch.cat(hits) for hits in correct)
    return Accuracy(
        examples=len(old),
        before=_share(share(int(old.sum()), len(old))),
        after=_share(share(int(new.sum()), len(new))),
        change=_share(paired_change(int((new & ~old).sum()), int((old & ~new).sum()), len(old))),
    )


@torch.no_grad()
def check_labels(network: nn.Module, batches: Sequence[tuple[Inputs, Tensor]]) -> None:
    """Check labels by a pass of the first batch alone.

    Args:
        network: In eval mode.
        batches: Inputs and their labels; batches whose labels have other lengths than the first are not looked at.

    Raises:
        DataError: the network does not take the inputs, or labels do not go with what it gives.
    """
    measure_accuracy(network, network, batches[:1])
    for batch, labels in batches[:1]:
        scores = first_output(call(network, batch), length(batch))
        assert scores is not None
        for _, others in batches[1:]:
            if others.shape[1:] == labels.shape[1:]:
                predicted_classes(scores[:1].expand(len(others), *scores.shape[1:]), others)


def _share(estimate: Estimate) -> Share:
    assert math.isfinite(estimate.value)
    return Share(value=estimate.value, ci95=estimate.ci95)
