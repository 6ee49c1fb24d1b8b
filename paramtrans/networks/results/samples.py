"""A few examples that nothing was fitted to, and what a network says of them before and after, to be looked at."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from paramtrans.networks.forward.activations import Inputs, arguments, call, input_tensors, length, pick_examples
from paramtrans.networks.forward.examples import Examples
from paramtrans.networks.forward.outputs import first_output
from paramtrans.networks.losses import Kind
from paramtrans.networks.results.predictions import token_ids, tokens_name

MOST, PROMPT, CONTINUED = 6, 24, 24
"""Examples, tokens of a text that are shown, and tokens that follow."""
SIDE = 160
"""Pixels of a side of an image, at most."""

Decode = Callable[[Sequence[int]], str | None]


@dataclass(frozen=True)
class Sample:
    """One example."""

    image: str | None
    """As a PNG in a `data:` address."""
    text: str | None
    before: str
    after: str
    same: bool


@torch.no_grad()
def samples(
    before: nn.Module, after: nn.Module, inputs: Iterable[Inputs], predicts: Kind | None, decode: Decode
) -> list[Sample]:
    """What both networks say of the first examples that are kept aside: classes of images, continuations of texts.

    Args:
        before: The untouched network, in eval mode.
        after: The smaller one.
        inputs: What it was calibrated with.
        predicts: What the first output is, as `measure_losses` says it.
        decode: Words for numbers of tokens, None where none are known.
    """
    shown: list[Sample] = []
    for batch in Examples(list(inputs)).held_out():
        for number in range(length(batch)):
            if len(shown) == MOST:
                return shown
            sample = _sample(before, after, pick_examples(batch, torch.tensor([number])), predicts, decode)
            if sample is None:
                return []
            shown.append(sample)
    return shown


def _sample(
    before: nn.Module, after: nn.Module, example: Inputs, predicts: Kind | None, decode: Decode
) -> Sample | None:
    """One example; None for what is nothing to look at."""
    if predicts == "tokens":
        scores = _scores(before, example)
        ids, _ = token_ids(example, tokens_name(before, example, scores))
    else:
        ids = None
    if ids is not None:
        start = ids[:, : min(PROMPT, max(1, ids.shape[1] // 2))]
        old, new = (_words(_continuation(network, example, ids, start), decode) for network in (before, after))
        return Sample(None, _words(start[0].tolist(), decode), old, new, old == new)
    tensors = input_tensors(example).values()
    image = next((tensor for tensor in tensors if tensor.ndim == 4 and tensor.shape[1] in (1, 3)), None)
    if predicts == "scores" and image is not None:
        classes = [_class(network, example) for network in (before, after)]
        old, new = (f"class {number} ({100 * share:.0f}%)" for number, share in classes)
        return Sample(_png(image[0]), None, old, new, classes[0][0] == classes[1][0])
    return None


def _continuation(network: nn.Module, example: Inputs, ids: Tensor, start: Tensor) -> list[int]:
    """The tokens that follow, each the most likely one."""
    tokens = start
    named = arguments(example)[1]
    name = next((name for name, value in named.items() if value is ids), None)
    # What has an entry for each token would no longer fit; what an encoder reads beside them stays.
    others = {key: value for key, value in named.items() if not _of_tokens(value, ids)}
    for _ in range(CONTINUED):
        inputs = tokens if name is None else {**others, name: tokens}
        scores = _scores(network, inputs)
        tokens = torch.cat([tokens, scores[:, -1:].argmax(-1).to(tokens)], 1)
    return tokens[0, start.shape[1] :].tolist()


def _of_tokens(value: Any, ids: Tensor) -> bool:
    """Whether an input has an entry for each token beside these: a mask, or positions in order."""
    if not isinstance(value, Tensor) or value.shape != ids.shape or value is ids:
        return value is ids
    return bool((value <= 1).all()) or bool((value.diff(dim=1) == 1).all())


def _words(tokens: Sequence[int], decode: Decode) -> str:
    words = decode(tokens)
    return " ".join(map(str, tokens)) if words is None else words


def _class(network: nn.Module, example: Inputs) -> tuple[int, float]:
    """The most likely class, and its share of the softmax."""
    scores = _scores(network, example)[0].float().softmax(0)
    return int(scores.argmax()), float(scores.max())


def _scores(network: nn.Module, example: Inputs) -> Tensor:
    """What it says of one example."""
    scores = first_output(call(network, example), 1)
    assert scores is not None
    return scores


def _png(image: Tensor) -> str:
    """An image `[channels, height, width]` of any range, from its darkest value to its lightest."""
    from PIL import Image

    values = image.detach().float().cpu()
    values = (values - values.min()) / (values.max() - values.min()).clamp_min(1e-12)
    pixels = (255 * values).byte().permute(1, 2, 0).numpy()
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    picture.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
