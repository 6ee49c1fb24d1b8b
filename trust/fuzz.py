"""Any config and any parameter file is accepted or refused in words; what is accepted comes back as it was."""

from __future__ import annotations

import hashlib
import json
import signal
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from random import Random
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings, strategies as st

from paramtrans import config
from paramtrans.errors import ParamtransError
from paramtrans.plugins import plugins
from paramtrans.runs.run import Run
from paramtrans.storage import json_files, sealed_params
from paramtrans.utils.progress import Reporter
from trust.checks import Count, Setting
from trust.runs import CONFIG, PLUGIN, Process, limited, undisturbed

MEMORY = 3000
"""Megabytes more than at its start that the fuzzing process may ask for."""
SECONDS = 20
"""After which one document counts as a hang."""

NUMBERS = st.integers() | st.integers(-3, 40) | st.floats() | st.sampled_from([2**31, 2**63, 10**30, 1e308, 0])
VALUES = st.recursive(
    NUMBERS | st.booleans() | st.text(max_size=12) | st.sampled_from(["cpu", "cuda", "mse", "mixer", "conv", "../x"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


def fuzzed_configs(setting: Setting, count: Count) -> None:
    """The tiny config with a few of its values replaced, removed or added."""
    _in_a_process(setting, count, lambda messages: _configs(setting, messages))


def fuzzed_parameters(setting: Setting, count: Count) -> None:
    """Parameter files with changed bytes, changed headers and other content, whose checksums all fit."""
    whole, _ = undisturbed(setting.folder.parent / "undisturbed")
    good = (whole.run / "translator" / "translator.safetensors").read_bytes()
    _in_a_process(setting, count, lambda messages: _parameters(setting, messages, good))


def _configs(setting: Setting, messages: list[str]) -> int:
    document, registry = config.read(CONFIG), plugins().registry()
    places = list(_places(document))
    tried, accepted = [0], [0]

    @seed(setting.seed)
    @settings(max_examples=setting.trials, **QUIET)
    @given(edits=st.lists(st.tuples(st.sampled_from(places), st.none() | VALUES), min_size=1, max_size=3))
    def try_edits(edits: list[tuple[tuple[Any, ...], Any]]) -> None:
        changed = deepcopy(document)
        for place, value in edits:
            _replace(changed, place, value)
        tried[0] += 1
        with _noted(messages, f"config with {edits}"):
            config_ = config.validate(changed, registry)
            again = config.validate(config_.model_dump(mode="json"), registry)
            if again != config_:
                messages.append(f"config with {edits}: validates again to another")
            Run(config_, "run", Reporter(), plugins()).check()
            accepted[0] += 1

    try_edits()
    print(f"{accepted[0]} accepted", file=sys.stderr)
    return tried[0]


def _parameters(setting: Setting, messages: list[str], good: bytes) -> int:
    path, other = setting.folder / "x.safetensors", setting.folder / "y.safetensors"
    tried, accepted = [0], [0]

    @seed(setting.seed)
    @settings(max_examples=setting.trials, **QUIET)
    @given(number=st.integers(0, 2**32), data=st.binary(max_size=64) | st.none())
    def try_data(number: int, data: bytes | None) -> None:
        content = data if data is not None else _changed(good, Random(number))
        path.write_bytes(content)
        checksum = hashlib.sha256(content).hexdigest()
        json_files.write_sealed(sealed_params.record_path(path), {"bytes": len(content), "sha256": checksum})
        tried[0] += 1
        with _noted(messages, f"parameters {number}"):
            params, _ = sealed_params.load_params(path, at_most=len(good))
            sealed_params.save_params(other, params, {})
            again, _ = sealed_params.load_params(other)
            if any(_raw(params[name]) != _raw(again[name]) for name in params) or params.keys() != again.keys():
                messages.append(f"parameters {number}: come back as others")
            accepted[0] += 1

    try_data()
    print(f"{accepted[0]} accepted", file=sys.stderr)
    return tried[0]


QUIET: dict[str, Any] = {
    "database": None,
    "deadline": None,
    "suppress_health_check": list(HealthCheck),
    "phases": [Phase.explicit, Phase.generate],
}


def _in_a_process(setting: Setting, count: Count, do: Callable[[list[str]], int]) -> None:
    """Run `do` in a fork with bounded memory; it returns how often it tried, and tells what did not hold."""
    plugins().load_file(PLUGIN)
    result = setting.folder / "result.json"

    def run() -> None:
        messages: list[str] = []
        tried = do(messages)
        result.write_text(json.dumps([tried, messages]))

    ended = Process(setting.folder / "output", limited(run, MEMORY)).wait(limit=24 * 3600)
    if not result.exists():
        count.add("fuzzing", [f"ended with {ended.status}: {ended.err[-500:]}"])
        return
    tried, messages = json.loads(result.read_text())
    count.many(tried, messages)
    count.notes.append(ended.err.strip().splitlines()[-1])


@contextmanager
def _noted(messages: list[str], what: str) -> Iterator[None]:
    """Errors of ours are answers; anything else, and taking too long, is not."""

    def late(number: int, frame: object) -> None:
        raise TimeoutError(f"{SECONDS} s")

    signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        yield
    except ParamtransError:
        pass
    except Exception as error:
        messages.append(f"{what}: {type(error).__name__}: {str(error)[:200]}")
    finally:
        signal.alarm(0)


def _places(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a document, and in each table one that is not there yet."""
    items = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    for key, value in items:
        yield (*path, key)
        yield from _places(value, (*path, key))
    if isinstance(document, dict):
        yield (*path, "new")


def _replace(document: Any, place: tuple[Any, ...], value: Any) -> None:
    *before, last = place
    for key in before:
        if not isinstance(document, dict | list) or (isinstance(document, dict) and key not in document):
            return
        if isinstance(document, list) and not (isinstance(key, int) and key < len(document)):
            return
        document = document[key]
    if isinstance(document, dict):
        if value is None:
            document.pop(last, None)
        else:
            document[last] = value
    elif isinstance(document, list) and isinstance(last, int) and last < len(document):
        document[last] = value


def _changed(good: bytes, random: Random) -> bytes:
    """A parameter file with a change: of bytes anywhere, of its header's JSON, or of its length."""
    length = struct.unpack("<Q", good[:8])[0]
    way = random.randrange(4)
    if way == 0:
        content = bytearray(good)
        for _ in range(random.randint(1, 8)):
            content[random.randrange(len(content))] = random.randrange(256)
        return bytes(content)
    if way == 1:
        content = bytearray(good)
        content[random.randrange(8 + length)] = random.randrange(256)
        return bytes(content)
    if way == 2:
        return good[: random.randrange(len(good))]
    header = json.loads(good[8 : 8 + length])
    name = random.choice([name for name in header if name != "__metadata__"])
    key = random.choice(["dtype", "shape", "data_offsets"])
    header[name][key] = random.choice(
        ["F64", "BOOL", [0], [2**63], [-1, 4], [0, 0], [], None, header[name]["shape"][::-1]]
    )
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + good[8 + length :]


def _raw(tensor: Any) -> bytes:
    import torch

    return bytes(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()) if tensor.numel() else b""
