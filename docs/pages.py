"""Markdown of generated pages: text in lines of even length, and parts that are closed until they are asked for."""

from __future__ import annotations

import re
import textwrap

LEFT_ALONE = ("|", "#", "<", "!", "```")
"""What a block begins with whose lines stay as they are."""

CODE, SPACE = re.compile(r"`[^`]+`"), "\0"
"""Code in a line, which is not broken: its spaces are this letter until all lines are made."""


def wrapped(text: str) -> str:
    """Paragraphs and lists in lines of up to 120 letters, once numbers have taken the places of their names."""
    blocks = [part if part.startswith(LEFT_ALONE) else _filled(part) for part in text.strip().split("\n\n")]
    return "\n\n".join(blocks) + "\n"


def _filled(block: str) -> str:
    items = re.split(r"\n(?=- |\d+\. )", CODE.sub(lambda match: re.sub(r"\s+", SPACE, match[0]), block))
    return "\n".join(textwrap.fill(re.sub(r"[ \n]+", " ", item), **_shape(item)) for item in items).replace(SPACE, " ")


def _shape(item: str) -> dict[str, object]:
    indent = re.match(r"(- |\d+\. )?", item)[0]
    return {"width": 120, "subsequent_indent": " " * len(indent), "break_long_words": False, "break_on_hyphens": False}


def folded(title: str, text: str, name: str = "") -> str:
    """Markdown behind its title; `name` is what links lead to."""
    place = f' id="{name}"' if name else ""
    return f'<details markdown="1"{place}>\n<summary>{title}</summary>\n\n{text.strip()}\n\n</details>\n'
