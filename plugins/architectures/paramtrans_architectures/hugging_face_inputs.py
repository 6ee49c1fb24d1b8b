"""Texts and images as inputs of models of transformers, by the tokenizer or the image processor of their folder."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from paramtrans.errors import ConfigError
from paramtrans.networks.loading.calibration import BATCH, in_groups
from paramtrans.utils.boundary import reason

SHARE = 0.1
"""Of a model's vocabulary its tokenizer knows more than this; some leave a part of it free."""
LENGTH = 256
"""Tokens of a text, at most, by default and where the model takes as many."""


def of_texts(
    network: Any, folder: Path, texts: Iterable[str], count: int, length: int | None
) -> Sequence[Mapping[str, Tensor]]:
    """Batches of `input_ids` `[n, tokens]`, without padding, since padding would be fitted to as well.

    A causal language model reads texts one after the other, with its end-of-text token between them, in rows of
    `length` tokens. For any other, each text is a row of its own, cut off at `length`; a batch has rows of one length.

    Args:
        network: The model.
        folder: With its tokenizer.
        texts: In the order in which they are taken.
        count: Rows, at most.
        length: Tokens of a row, at most; None: 256, or fewer where the model takes fewer.

    Raises:
        ConfigError: there is no tokenizer, or the model takes fewer tokens.
    """
    tokenizer = loaded("AutoTokenizer", "tokenizer", folder)
    _check_vocabulary(network, tokenizer, folder)
    length = _length(network, tokenizer, folder, length)
    rows = _joined(tokenizer, texts, length) if _is_causal(network) else _truncated(tokenizer, texts, length)
    batches = _same_length(list(islice(rows, count)))
    encoded = [{"input_ids": torch.tensor(batch)} for batch in batches]
    if network.config.is_encoder_decoder:
        return [{**batch, "decoder_input_ids": batch["input_ids"]} for batch in encoded]
    return encoded


def of_images(network: Any, folder: Path, images: Iterable[Any], count: int) -> Sequence[Mapping[str, Tensor]]:
    """Batches of `pixel_values` `[n, channels, height, width]`, and of what else the model takes of its processor.

    Args:
        network: The model.
        folder: With its image processor.
        images: As Pillow holds them.
        count: Images, at most.

    Raises:
        ConfigError: there is no image processor, or the model takes no images.
    """
    processor = loaded("AutoImageProcessor", "image processor", folder)
    parameters = inspect.signature(network.forward).parameters
    encoded = [processor(images=list(group), return_tensors="pt") for group in in_groups(islice(images, count))]
    batches = [{name: value for name, value in batch.items() if name in parameters} for batch in encoded]
    if batches and not batches[0]:
        raise ConfigError([f"hf:{folder}: {type(network).__name__} takes no images"])
    return batches if sum(len(next(iter(batch.values()))) for batch in batches) > 1 else []


def words(folder: Path, tokens: Sequence[int]) -> str | None:
    """The text of some tokens; None without a tokenizer."""
    try:
        decoded: str = loaded("AutoTokenizer", "tokenizer", folder).decode(tokens)
    except ConfigError:
        return None
    return decoded


@lru_cache(maxsize=1)
def loaded(kind: str, role: str, folder: Path) -> Any:
    """The tokenizer, image processor or feature extractor of a folder; none of its code is run.

    Args:
        kind: The class of transformers that loads it.
        role: What it is called in messages.
        folder: The folder.

    Raises:
        ConfigError: there is none that can be used.
    """
    import transformers

    try:
        return getattr(transformers, kind).from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # it may raise anything for files that do not fit together
        raise ConfigError(
            [f"hf:{folder}: has no {role} that can be used ({reason(error)}); download its files too"]
        ) from error


def _is_causal(network: Any) -> bool:
    """Whether a model continues texts."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return type(network).__name__ in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()


def _length(network: Any, tokenizer: Any, folder: Path, length: int | None) -> int:
    """Tokens of a row; raises `ConfigError` where the model takes fewer than were asked for."""
    limit = min(tokenizer.model_max_length, getattr(network.config, "max_position_embeddings", None) or 2**31)
    if length is not None and length > limit:
        raise ConfigError([f"--length {length}: hf:{folder} takes {limit} tokens at most"])
    return length or min(LENGTH, limit)


def _check_vocabulary(network: Any, tokenizer: Any, folder: Path) -> None:
    """Raise `ConfigError` for a tokenizer that knows next to nothing, as transformers makes one of a folder without."""
    known, of_model = len(tokenizer), getattr(network.config.get_text_config(), "vocab_size", 0)
    if known < SHARE * of_model:
        raise ConfigError(
            [
                f"hf:{folder}: has no tokenizer that can be used (it knows {known:,} tokens, the model {of_model:,}); "
                "download its files too"
            ]
        )


def _joined(tokenizer: Any, texts: Iterable[str], length: int) -> Iterator[list[int]]:
    """Rows of one long text; what is left over at its end is left out."""
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    tokens: list[int] = []
    for text in texts:
        tokens += [*tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"], *end]
        while len(tokens) >= length:
            yield tokens[:length]
            tokens = tokens[length:]


def _truncated(tokenizer: Any, texts: Iterable[str], length: int) -> Iterator[list[int]]:
    """A row for each text."""
    for text in texts:
        if row := tokenizer(text, truncation=True, max_length=length)["input_ids"]:
            yield row


def _same_length(rows: Sequence[list[int]]) -> list[list[list[int]]]:
    """Batches of rows of one length, the largest batches first; where no two rows have the same, all are cut off."""
    by_length: dict[int, list[list[int]]] = {}
    for row in rows:
        by_length.setdefault(len(row), []).append(row)
    if len(rows) > 1 and len(by_length) == len(rows):
        shortest = min(by_length)
        by_length = {shortest: [row[:shortest] for row in rows]}
    batches = [list(group) for same_length in by_length.values() for group in in_groups(same_length, BATCH)]
    batches.sort(key=len, reverse=True)
    return batches if batches and len(batches[0]) > 1 else []
