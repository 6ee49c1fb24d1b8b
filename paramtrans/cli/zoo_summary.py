"""What `paramtrans zoo inspect` says of a zoo."""

from __future__ import annotations

import json
from typing import Any

from paramtrans.errors import printable
from paramtrans.utils.counts import counted


def _component(part: dict[str, Any]) -> str:
    options = ", ".join(
        f"{key} = {json.dumps(value)}" for key, value in part.items() if key != "name" and value is not None
    )
    return printable(f"{part['name']} ({options})" if options else str(part["name"]))


def line(summary: dict[str, Any]) -> str:
    """A zoo in one line."""
    hosts = ", ".join(f"{count} {role}" for role, count in summary["hosts"].items())
    return f"{summary['name']}  {_component(summary['task'])}, {_component(summary['source'])}: {hosts}"


def described(summary: dict[str, Any]) -> str:
    """A zoo in a line for each thing that is to be said of it."""
    rows = [
        ("zoo", summary["name"]),
        ("folder", printable(summary["folder"])),
        ("task", _component(summary["task"])),
        ("source block", _component(summary["source"])),
        ("hosts", ", ".join(f"{count:,} {role}" for role, count in summary["hosts"].items())),
        *(
            (f"target {t['name']}", f"{_component(t['target'])}: {counted(t['hosts'], 'host')}")
            for t in summary["targets"]
        ),
        (
            "size",
            f"{counted(summary['files'], 'file')}, {summary['bytes']:,} bytes, trained in {summary['seconds']:,.0f} s",
        ),
        *((printable(name), str(shape)) for name, shape in summary["tensors"].items()),
    ]
    return "\n".join(f"{heading:<24} {value}" for heading, value in rows)
