"""Recordings as inputs of models of transformers, by the feature extractor of their folder."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from paramtrans.api.architecture import Recording
from paramtrans.errors import ConfigError
from paramtrans.networks.forward.activations import call
from paramtrans.networks.loading.audio_files import resampled
from paramtrans.networks.loading.calibration import in_groups
from paramtrans_architectures.hugging_face_inputs import loaded

SECONDS = 10
"""Of a recording that are taken, at most, by default."""
AT_ONCE = 4
"""Recordings in a batch: a second of sound is many values."""
DECODED = 32
"""Tokens that a decoder is given, at most."""

Encoded = dict[str, Tensor]


def of_audio(
    network: Any, folder: Path, recordings: Iterable[Recording], count: int, seconds: int | None
) -> Sequence[Mapping[str, Tensor]]:
    """Batches of what the model takes of its feature extractor: `input_values` `[n, samples]`, or `input_features`.

    Recordings are taken at the model's own rate and cut off at whole seconds, so that many have the same length; a
    batch has those of one. There is no padding but what the extractor does to all recordings alike. Where no two have
    the same length, all are cut off at the shortest. A decoder is given what the model itself says first.

    Args:
        network: The model.
        folder: With its feature extractor.
        recordings: In the order in which they are taken.
        count: Recordings, at most.
        seconds: Of a recording, at most; None: 10.

    Raises:
        ConfigError: there is no feature extractor, or the model takes no recordings.
    """
    extractor = loaded("AutoFeatureExtractor", "feature extractor", folder)
    rate = getattr(extractor, "sampling_rate", None)
    if not isinstance(rate, int):
        raise ConfigError([f"hf:{folder}: its {type(extractor).__name__} is for no recordings"])
    pieces = [_cut(recording, rate, seconds or SECONDS) for recording in islice(recordings, count)]
    batches = _batches(network, folder, extractor, pieces)
    if len(batches) == len(pieces) > 1:
        shortest = min(map(len, pieces))
        batches = _batches(network, folder, extractor, [piece[:shortest] for piece in pieces])
    if not batches or len(next(iter(batches[0].values()))) < 2:
        return []
    return [_with_decoder_inputs(network, batch) for batch in batches]


def _cut(recording: Recording, rate: int, seconds: int) -> Tensor:
    """The beginning of a recording at another rate, of whole seconds where it has one."""
    beginning = Recording(recording.samples[: recording.rate * seconds], recording.rate)
    samples = resampled(beginning, rate)
    return samples[: len(samples) // rate * rate or len(samples)]


def _batches(network: Any, folder: Path, extractor: Any, pieces: Sequence[Tensor]) -> list[Encoded]:
    """Recordings whose inputs have the same shapes together, the largest batches first."""
    parameters = inspect.signature(network.forward).parameters
    by_shape: dict[tuple[torch.Size, ...], list[Encoded]] = {}
    for piece in pieces:
        features = extractor(piece.numpy(), sampling_rate=extractor.sampling_rate, return_tensors="pt")
        encoded = {
            name: value.to(network.dtype) if value.is_floating_point() else value
            for name, value in features.items()
            if name in parameters
        }
        if not encoded:
            raise ConfigError([f"hf:{folder}: {type(network).__name__} takes no recordings"])
        by_shape.setdefault(tuple(value.shape for value in encoded.values()), []).append(encoded)
    batches = [
        {name: torch.cat([encoded[name] for encoded in group]) for name in group[0]}
        for alike in by_shape.values()
        for group in in_groups(alike, AT_ONCE)
    ]
    return sorted(batches, key=lambda batch: len(next(iter(batch.values()))), reverse=True)


@torch.no_grad()
def _with_decoder_inputs(network: Any, batch: Encoded) -> Encoded:
    """A batch with the tokens that the model itself says first, each the likeliest, until one recording's end."""
    if "decoder_input_ids" not in inspect.signature(network.forward).parameters:
        return batch
    config = network.config
    start = config.decoder_start_token_id
    tokens = torch.full((len(next(iter(batch.values()))), 1), config.bos_token_id if start is None else start)
    further: dict[str, Any] = {}
    while tokens.shape[1] < DECODED:
        output = call(network, {**batch, **further, "decoder_input_ids": tokens})
        scores = getattr(output, "logits", None)
        if scores is None:
            break
        following = scores[:, -1].argmax(-1, keepdim=True).cpu()
        if bool((following == config.eos_token_id).any()):
            break
        tokens = torch.cat([tokens, following], dim=1)
        further = {"encoder_outputs": (output.encoder_last_hidden_state,)}
    return {**batch, "decoder_input_ids": tokens}
