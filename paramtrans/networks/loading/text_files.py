"""Texts from files, as calibration inputs are made of."""

from __future__ import annotations

import json
from pathlib import Path

from paramtrans.errors import DataError, StoreError
from paramtrans.storage import outside
from paramtrans.utils.boundary import reason

TEXTS = (".txt", ".jsonl")
TEXT_KEYS = ("text", "content")
"""Keys under which a line of `.jsonl` keeps its text; the first that it has counts."""
MAX_TEXTS = 2**31
"""Bytes of a file of texts, at most."""


def read_texts(path: Path) -> list[str]:
    """The texts of a file, none of them empty.

    Args:
        path: In `.jsonl`, each line is a text, or a record with one as `text` or `content`. In `.txt`, blank lines part
            texts; where there are none, each line is one.

    Raises:
        DataError: this is no such file, or holds no texts.
    """
    try:
        content = outside.content(path, MAX_TEXTS).decode("utf-8-sig")
    except StoreError as error:
        raise DataError(str(error)) from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is no text in UTF-8 ({reason(error)}); save it as such") from error
    lines = content.replace("\r\n", "\n").split("\n")
    if path.suffix == ".jsonl":
        texts = [_text(path, number, line) for number, line in enumerate(lines, 1) if line.strip()]
    else:
        paragraphs = "\n".join(line.rstrip() for line in lines).strip().split("\n\n")
        texts = paragraphs if len(paragraphs) > 1 else lines
    texts = [text.strip() for text in texts if text.strip()]
    if not texts:
        raise DataError(f"{path}: holds no texts")
    return texts


def _text(path: Path, number: int, line: str) -> str:
    """The text of one line of `.jsonl`."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: line {number} is no JSON ({reason(error)})") from error
    text = next((entry[key] for key in TEXT_KEYS if key in entry), None) if isinstance(entry, dict) else entry
    if not isinstance(text, str):
        raise DataError(
            f"{path}: line {number} holds no text; give a string, or a record with {' or '.join(TEXT_KEYS)}"
        )
    return text
