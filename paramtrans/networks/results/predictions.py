"""What the first output of a network says, and how much of it stayed the same."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, cross_entropy

from paramtrans.errors import DataError
from paramtrans.networks.forward.activations import Inputs, arguments, call, first_examples
from paramtrans.networks.losses import Kind

LARGEST = 700.0
"""Largest mean log-likelihood that is told as a perplexity: more is no finite number."""


def named_outputs(output: Any) -> dict[str, Tensor]:
    """The floating-point tensors that a network gives, by keys and positions; "" where it gives nothing else."""
    if isinstance(output, Tensor):
        return {"": output} if output.is_floating_point() else {}
    inside = output.items() if isinstance(output, Mapping) else enumerate(output) if _listed(output) else ()
    return {
        f"{name}.{path}" if path else str(name): tensor
        for name, one in inside
        for path, tensor in named_outputs(one).items()
    }


def _listed(output: Any) -> bool:
    return isinstance(output, list | tuple)


@torch.no_grad()
def kind_of(network: nn.Module, batch: Inputs, output: Tensor) -> Kind:
    """What an output is, by its shape and, where that leaves it open, by its values.

    `[examples, tokens, values]` is of the next token where inputs are integers below the number of values, an output
    does not depend on later tokens, and the next ones are told better than by chance; else an embedding of each.
    `[examples, values]` is an embedding where all are of length one, else class scores.
    """
    ids, mask = token_ids(batch)
    if output.ndim == 3 and ids is not None and output.shape[:2] == ids.shape:
        likely = int(ids.max()) < output.shape[2] and ids.shape[1] > 1 and _looks_back_alone(network, batch, ids)
        return "tokens" if likely and _surprise(output, ids, mask)[0] < math.log(output.shape[2]) else "embedding"
    if output.ndim == 3:
        return "embedding"
    if output.ndim != 2 or output.shape[1] < 2:
        return "values"
    lengths = output.float().norm(dim=1)
    return "embedding" if bool(((lengths - 1).abs() < 1e-3).all()) and bool((output < 0).any()) else "scores"


def token_ids(batch: Inputs) -> tuple[Tensor | None, Tensor | None]:
    """Token numbers of a batch, `[examples, tokens]` of integers, and which of them are no padding: a second tensor of
    this shape that holds zeros and ones alone."""
    first, named = arguments(batch)
    tensors = [value for value in (*first, *named.values()) if isinstance(value, Tensor) and value.ndim == 2]
    whole = [tensor for tensor in tensors if not tensor.is_floating_point() and not tensor.is_complex()]
    ids = [tensor for tensor in whole if tensor.dtype != torch.bool and int(tensor.max()) > 1]
    if not ids:
        return None, None
    masks = [t for t in whole if t.shape == ids[0].shape and t is not ids[0] and 0 <= int(t.min()) <= int(t.max()) <= 1]
    return ids[0], next((mask.bool() for mask in masks if mask.any()), None)


@torch.no_grad()
def _looks_back_alone(network: nn.Module, batch: Inputs, ids: Tensor) -> bool:
    """Whether outputs do not change with tokens behind them, tried with another last token."""
    one = first_examples(batch, 1)
    changed = ids[:1].clone()
    changed[:, -1] = (changed[:, -1] + 1) % (int(ids.max()) + 1)
    again = {k: changed if v is ids else v for k, v in batch.items()} if isinstance(batch, Mapping) else changed
    other = first_examples(again, 1) if isinstance(again, Mapping) else again
    given, beside = (next(iter(named_outputs(call(network, some)).values()))[:, :-1] for some in (one, other))
    return torch.allclose(given.float(), beside.float(), rtol=1e-3, atol=1e-4 * float(given.abs().max()))


def _surprise(scores: Tensor, ids: Tensor, mask: Tensor | None) -> tuple[float, int]:
    """Mean negative log-likelihood of each next token, and of how many."""
    wanted = ids[:, 1:].to(scores.device).long()
    if mask is not None:
        wanted = wanted.masked_fill(~(mask[:, 1:] & mask[:, :-1]).to(scores.device), -100)
    count = int((wanted != -100).sum())
    total = cross_entropy(scores[:, :-1].float().flatten(0, 1), wanted.flatten(), reduction="sum")
    return float(total) / max(1, count), count


def top(scores: Tensor, labels: Tensor) -> Tensor:
    """The class of largest score for each label; raises `DataError` where shapes do not go together."""
    if labels.is_floating_point() or labels.is_complex():
        raise DataError(f"evaluate: labels are numbers of classes, not {labels.dtype}")
    for axis in (1, -1):
        if scores.ndim > 1 and scores.movedim(axis, -1).shape[:-1] == labels.shape:
            return scores.argmax(axis)
    raise DataError(
        f"evaluate: labels {list(labels.shape)} do not go with what the network gives first, {list(scores.shape)}; "
        "each needs a score for each class on axis 1, or on the last"
    )


class Predictions:
    """How much of what an output says stayed the same, batch by batch."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self._same = self._predicted = self._tokens = self._vectors = 0
        self._surprise = [0.0, 0.0]
        self._cosine = 0.0

    def add(self, batch: Inputs, before: Tensor, after: Tensor) -> None:
        """What two networks gave for a batch, of one shape."""
        ids, mask = token_ids(batch)
        some = slice(None) if mask is None or mask.shape != before.shape[:2] else mask.to(before.device)
        if self.kind == "embedding":
            alike = cosine_similarity(before[some].double(), after[some].double(), dim=-1)
            self._cosine, self._vectors = self._cosine + float(alike.sum()), self._vectors + alike.numel()
        if self.kind in ("scores", "tokens") and before.ndim > 1:
            same = before.argmax(1) == after.argmax(1)
            if self.kind == "tokens":
                same = (before.argmax(-1) == after.argmax(-1))[some]
            self._same, self._predicted = self._same + int(same.sum()), self._predicted + same.numel()
        if self.kind == "tokens" and ids is not None and ids.shape == before.shape[:2]:
            for place, scores in enumerate((before, after)):
                mean, count = _surprise(scores, ids, mask)
                self._surprise[place] += mean * count
            self._tokens += count

    def told(self) -> dict[str, Any]:
        """The fields of `Losses` that this is about."""
        found: dict[str, Any] = {"predicts": self.kind}
        if self._predicted:
            found["agreement"] = self._same / self._predicted
        if self._vectors:
            found["cosine"] = self._cosine / self._vectors
        if self._tokens:
            before, after = (math.exp(min(total / self._tokens, LARGEST)) for total in self._surprise)
            found["perplexity"] = (before, after)
        return found
