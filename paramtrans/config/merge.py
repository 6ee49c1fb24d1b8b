"""What a config is laid together from: files that extend one another, one of several scales, settings from outside."""

from __future__ import annotations

import re
import tomllib
from codecs import BOM_UTF8
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from paramtrans.errors import ConfigError, StoreError
from paramtrans.storage import outside
from paramtrans.utils.near import did_you_mean

MAX_BYTES = 100_000
"""A config larger than this is refused unread."""
KEY_PARTS = 100
DEEP_KEY = re.compile(rb"""(?<![\w-])(?:(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+){%d}""" % KEY_PARTS)
"""A key that would take the parser minutes, as its time grows with the square of the parts."""
MAX_DEPTH = 20
"""Parts of a dotted path, at most; tables deeper than that are replaced as a whole."""
MAX_FILES = 10
"""Files that extend one another, at most."""


def read(path: Path | str) -> dict[str, Any]:
    """A file as a dictionary, laid over the file that it `extends`, whose path is relative to its own.

    Args:
        path: The file, TOML.

    Returns:
        What the files say together.

    Raises:
        ConfigError: there is no such file, or it is no TOML.
    """
    files = [Path(path)]
    document = _toml(files[0])
    while "extends" in document:
        extended, file = document["extends"], files[-1]
        if not isinstance(extended, str) or len(files) == MAX_FILES:
            reason = f"more than {MAX_FILES} files extend one another" if isinstance(extended, str) else "no path"
            raise ConfigError([f"{file}: extends: {reason}; name one TOML file, relative to this one"])
        files.append(file.parent / extended)
        document = merge(_toml(files[-1]), {key: value for key, value in document.items() if key != "extends"})
    return document


def _toml(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_BYTES and path.is_file():
            raise ConfigError([f"{path}: larger than {MAX_BYTES:,} bytes; this is no config"])
        content = outside.content(path, MAX_BYTES)
        if content.startswith(BOM_UTF8):
            raise ConfigError([f"{path}: begins with a byte-order mark; save it as UTF-8 without one"])
        if DEEP_KEY.search(content):
            raise ConfigError([f"{path}: a key of more than {KEY_PARTS} parts; this is no config"])
        return tomllib.loads(content.decode())
    except OSError as error:
        raise ConfigError([f"{path}: {error.strerror or error}; give the path of a TOML file"]) from error
    except StoreError as error:
        raise ConfigError([f"{error}; give the path of a TOML file"]) from error
    except (ValueError, RecursionError) as error:  # broken TOML, text that is not UTF-8, numbers without end
        raise ConfigError([f"{path}: not valid TOML: {error}"]) from error


def merge(below: Mapping[str, Any], above: Mapping[str, Any], depth: int = 0) -> dict[str, Any]:
    """`above` laid over `below`, table by table; a table with another `name` is another component and replaces whole.

    Args:
        below: What it is laid over; not changed.
        above: What counts where both say something.
        depth: Tables around them, so that nesting without end is refused.

    >>> merge({"translator": {"name": "mixer", "layers": 8}}, {"translator": {"layers": 2}})
    {'translator': {'name': 'mixer', 'layers': 2}}
    >>> merge({"translator": {"name": "mixer", "layers": 8}}, {"translator": {"name": "mlp"}})
    {'translator': {'name': 'mlp'}}
    """
    merged = dict(below)
    for key, value in above.items():
        under = below.get(key)
        same = isinstance(value, Mapping) and isinstance(under, Mapping) and _same_component(under, value)
        merged[key] = merge(under or {}, value, depth + 1) if same and depth < MAX_DEPTH else value
    return merged


def _same_component(below: Mapping[str, Any], above: Mapping[str, Any]) -> bool:
    name = below.get("name")
    return bool(above.get("name", name) == name)


def scaled(document: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The document with the table `scales.<scale>` laid over it, and neither `scale` nor `scales` any more."""
    scales, chosen = document.get("scales", {}), document.get("scale")
    rest = {key: value for key, value in document.items() if key not in ("scale", "scales")}
    if chosen is None:
        return rest
    if not isinstance(scales, dict) or not isinstance(scales.get(chosen) if isinstance(chosen, str) else None, dict):
        names = sorted(scales) if isinstance(scales, dict) else []
        hint = did_you_mean(str(chosen), names, f"this config has {', '.join(names) or 'none'}")
        raise ConfigError([f"{where}: scale: unknown scale {str(chosen)[:60]!r}{hint}"])
    return merge(rest, scales[chosen])


def settle(document: dict[str, Any], settings: Sequence[str], where: str) -> dict[str, Any]:
    """A document as it is meant: of the chosen scale, and with the settings from outside laid over everything."""
    choosing = [setting for setting in settings if key_of(setting).partition(".")[0] in ("scale", "scales")]
    chosen = scaled(override(document, choosing), where)
    return override(chosen, [setting for setting in settings if setting not in choosing])


def override(document: dict[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    """The document with `a.b.0.c=value` settings applied; values are TOML, and anything else is text.

    Args:
        document: As read from TOML; it stays as it is.
        settings: Each `a.b=value`; numbers in the path are places in a list.

    Returns:
        A copy of the document.

    Raises:
        ConfigError: a setting is none, or its place is not in the document.
    """
    for setting in settings:
        path, equals, text = setting.partition("=")
        keys = path.split(".")
        if not equals or not all(keys) or len(keys) > MAX_DEPTH:
            raise ConfigError([f"--set {setting[:80]}: expected a.b=value"])
        document = put(document, keys, _value(text), f"--set {setting}")
    return document


def key_of(setting: str) -> str:
    """The dotted path of an `a.b=value`."""
    return setting.partition("=")[0]


def put(node: Any, keys: Sequence[str], value: Any, what: str) -> Any:
    """A copy with the value at some place replaced.

    Args:
        node: Tables and lists.
        keys: The place: names in tables, numbers in lists.
        value: What stands there from now on.
        what: What the message begins with.

    Raises:
        ConfigError: there is no such place.
    """
    key, *rest = keys
    if isinstance(node, list):
        if not (key.isascii() and key.isdecimal() and len(key) < 8 and int(key) < len(node)):
            raise ConfigError([f"{what}: {key} is no place in a list of {len(node)}"])
        index = int(key)
        return [*node[:index], put(node[index], rest, value, what) if rest else value, *node[index + 1 :]]
    if not isinstance(node, dict):
        raise ConfigError([f"{what}: there is nothing below the value {node!r}"])
    return {**node, key: put(node.get(key, {}), rest, value, what) if rest else value}


def _value(text: str) -> Any:
    """A TOML value where the text is one, and nothing but one; else the text itself."""
    try:
        document = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    return document["value"] if list(document) == ["value"] else text
