"""Takes the translators of finished runs into the package, with their cards.

python plugins/pretrained/refresh.py runs/mnist_conv_to_conv runs/mnist_conv_to_mlp runs/mnist_conv_to_attn
"""

from __future__ import annotations

import sys
from pathlib import Path

from paramtrans import PretrainedTranslator, card, load_translator, store

PACKAGE = Path(__file__).parent / "paramtrans_pretrained"


def main(runs: list[str]) -> None:
    for run in map(Path, runs):
        known = card.of_run(store.read_json(run / "run.json"), store.read_json(run / "evaluation.json"))
        PretrainedTranslator(load_translator(run), known).save_pretrained(PACKAGE / known.name)


if __name__ == "__main__":
    main(sys.argv[1:])
