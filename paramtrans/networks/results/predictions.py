"""What the first output of a network says, and how much of it stayed the same."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, cross_entropy

from paramtrans.errors import DataError
from paramtrans.networks.forward.activations import Inputs, call, first_examples, input_tensors
from paramtrans.networks.forward.outputs import first_output
from paramtrans.networks.losses import Kind, Share
from paramtrans.networks.results.expected import ExpectedChange
from paramtrans.ops.chunks import CHUNK

LARGEST = 700.0
"""Largest mean log-likelihood that is given as a perplexity: more is no finite number."""


@torch.no_grad()
def kind_of(network: nn.Module, batch: Inputs, output: Tensor) -> Kind:
    """What an output is, by its shape and, where that leaves it open, by its values.

    `[examples, tokens, values]` is of the next token where inputs are integers below the number of values, an output
    does not depend on later tokens, and next tokens are predicted better than by chance; else an embedding of each.
    `[examples, values]` is an embedding where all are of length one, else class scores.

    Args:
        network: In eval mode.
        batch: Inputs.
        output: What the network gives for them.
    """
    return _kind(batch, output, tokens_name(network, batch, output))


def _kind(batch: Inputs, output: Tensor, name: str | None) -> Kind:
    """As `kind_of`, with the input that `tokens_name` names."""
    if output.ndim == 3:
        ids, mask = token_ids(batch, name)
        if name is None or ids is None:
            return "embedding"
        return "tokens" if _surprise(output, ids, mask)[0] < math.log(output.shape[2]) else "embedding"
    if output.ndim != 2 or output.shape[1] < 2:
        return "values"
    lengths = output.float().norm(dim=1)
    return "embedding" if bool(((lengths - 1).abs() < 1e-3).all()) and bool((output < 0).any()) else "scores"


def tokens_name(network: nn.Module, batch: Inputs, output: Tensor) -> str | None:
    """The input whose tokens an output may be about: of its shape, and looked back at alone; "" for one without a name.

    With an encoder and a decoder it is the decoder's.

    Args:
        network: In eval mode.
        batch: Inputs.
        output: What the network gives for them.
    """
    for name, ids in _token_inputs(batch).items():
        fits = output.ndim == 3 and output.shape[:2] == ids.shape and int(ids.max()) < output.shape[2]
        if fits and ids.shape[1] > 1 and _looks_back_alone(network, batch, name):
            return name
    return None


def token_ids(batch: Inputs, name: str | None = None) -> tuple[Tensor | None, Tensor | None]:
    """Token numbers of a batch, and which of them are no padding.

    Args:
        batch: Inputs. Token numbers are a tensor of integers `[examples, tokens]`; the mask is another tensor of this
            shape that holds zeros and ones alone, with zeros only where there is one and the same token (numbers of
            sentences have them at many).
        name: Of the input with the tokens; by default the first such.

    Returns:
        Both `[examples, tokens]`, the mask of bool; None for what there is not.
    """
    inputs = _token_inputs(batch)
    ids = inputs.get(name) if name is not None else next(iter(inputs.values()), None)
    if ids is None:
        return None, None
    others = [tensor for tensor in _integers(batch).values() if tensor.shape == ids.shape and tensor is not ids]
    return ids, next((other.bool() for other in others if _is_mask(other, ids)), None)


def _is_mask(tensor: Tensor, ids: Tensor) -> bool:
    """Whether a tensor of whole numbers says where there is no padding."""
    if not (0 <= int(tensor.min()) <= int(tensor.max()) <= 1 and tensor.any()):
        return False
    return len(ids[tensor == 0].unique()) <= 1


def _token_inputs(batch: Inputs) -> dict[str, Tensor]:
    """Inputs that may be numbers of tokens, by name; "" for one that is given by position."""
    return {name: t for name, t in _integers(batch).items() if t.dtype != torch.bool and int(t.max()) > 1}


def _integers(batch: Inputs) -> dict[str, Tensor]:
    """Whole numbers `[examples, tokens]`, by name."""
    tensors = input_tensors(batch)
    return {k: t for k, t in tensors.items() if t.ndim == 2 and not t.is_floating_point() and not t.is_complex()}


@torch.no_grad()
def _looks_back_alone(network: nn.Module, batch: Inputs, name: str) -> bool:
    """Whether outputs do not change with tokens behind them, tried with another last token."""
    example = first_examples(batch, 1)
    changed = _integers(example)[name].clone()
    changed[:, -1] = (changed[:, -1] + 1) % (int(changed.max()) + 1)
    changed_example: Inputs = {**example, name: changed} if isinstance(example, Mapping) else changed
    outputs = [first_output(call(network, inputs), 1) for inputs in (example, changed_example)]
    output, changed_output = (output[:, :-1] for output in outputs if output is not None)
    return torch.allclose(output.float(), changed_output.float(), rtol=1e-3, atol=1e-4 * float(output.abs().max()))


def _surprise(scores: Tensor, ids: Tensor, mask: Tensor | None) -> tuple[float, int]:
    """Mean negative log-likelihood of each next token, and of how many."""
    next_tokens = ids[:, 1:].to(scores.device).long()
    if mask is not None:
        next_tokens = next_tokens.masked_fill(~(mask[:, 1:] & mask[:, :-1]).to(scores.device), -100)
    count = int((next_tokens != -100).sum())
    # Example by example, as scores of many tokens are large.
    totals = [
        float(cross_entropy(of_example[:-1].float(), tokens, reduction="sum"))
        for of_example, tokens in zip(scores, next_tokens, strict=True)
    ]
    return sum(totals) / max(1, count), count


def predicted_classes(scores: Tensor, labels: Tensor) -> Tensor:
    """The class of largest score for each label.

    Args:
        scores: Classes on axis 1, or on the last.
        labels: Numbers of classes; of the shape of `scores` without the axis of classes.

    Raises:
        DataError: the shapes do not go together, or labels are no numbers of classes.
    """
    if labels.is_floating_point() or labels.is_complex():
        raise DataError(f"evaluate: labels are numbers of classes, not {labels.dtype}")
    for axis in (1, -1):
        if scores.ndim > 1 and scores.movedim(axis, -1).shape[:-1] == labels.shape:
            low, high, classes = int(labels.min()), int(labels.max()), scores.shape[axis]
            if not 0 <= low <= high < classes:
                raise DataError(
                    f"evaluate: labels go from {low} to {high}, and the network has scores for {classes} classes, the "
                    "first of them 0; number labels as in training, and leave out what is of no class"
                )
            return scores.argmax(axis)
    raise DataError(
        f"evaluate: labels {list(labels.shape)} do not go with what the network gives first, {list(scores.shape)}; "
        "each needs a score for each class on axis 1, or on the last"
    )


class Predictions:
    """How much of what an output says stayed the same, batch by batch."""

    def __init__(self, kind: Kind, name: str | None = None) -> None:
        """`name`: of the input with the tokens that scores of next tokens are about; by default the first."""
        self.kind, self.name = kind, name
        self._same = self._predicted = self._tokens = self._vectors = 0
        self._expected = ExpectedChange()
        self._surprise = [0.0, 0.0]
        self._cosine = 0.0

    @classmethod
    def of(cls, network: nn.Module, batch: Inputs, output: Tensor, predicts: Kind | None) -> Predictions:
        """Those of an output of the untouched network, by what it is for the first batch unless `predicts` says it."""
        name = tokens_name(network, batch, output)
        return cls(predicts or _kind(batch, output, name), name)

    def add(self, batch: Inputs, before: Tensor, after: Tensor) -> None:
        """Count what two networks gave for a batch.

        Args:
            batch: Inputs.
            before: Output of the untouched network.
            after: Output of the smaller one, of the same shape.
        """
        ids, mask = token_ids(batch, self.name)
        positions = slice(None) if mask is None or mask.shape != before.shape[:2] else mask.to(before.device)
        if self.kind == "embedding":
            width = before.shape[-1]
            vectors = (tensor[positions].reshape(-1, width).split(max(1, CHUNK // width)) for tensor in (before, after))
            for some_before, some_after in zip(*vectors, strict=True):
                cosines = cosine_similarity(some_before.double(), some_after.double(), dim=-1)
                self._cosine, self._vectors = self._cosine + float(cosines.sum()), self._vectors + cosines.numel()
        if self.kind in ("scores", "tokens") and before.ndim > 1:
            axis = -1 if self.kind == "tokens" else 1
            is_same = before.argmax(axis) == after.argmax(axis)
            is_same = is_same[positions] if self.kind == "tokens" else is_same
            self._same, self._predicted = self._same + int(is_same.sum()), self._predicted + is_same.numel()
        if self.kind == "scores" and before.ndim > 1:
            self._expected.add(before, after)
        if self.kind == "tokens" and ids is not None and ids.shape == before.shape[:2]:
            for network_number, scores in enumerate((before, after)):
                mean, count = _surprise(scores, ids, mask)
                self._surprise[network_number] += mean * count
            self._tokens += count

    def measures(self) -> dict[str, Any]:
        """The fields of `Losses` on predictions, as far as there is anything to say."""
        values: dict[str, Any] = {"predicts": self.kind}
        if self._predicted:
            values["agreement"] = self._same / self._predicted
        if expected := self._expected.estimate():
            values["expected_change"] = Share(value=expected.value, ci95=expected.ci95)
        if self._vectors:
            values["cosine"] = self._cosine / self._vectors
        if self._tokens:
            before, after = (math.exp(min(total / self._tokens, LARGEST)) for total in self._surprise)
            values["perplexity"] = (before, after)
        return values
