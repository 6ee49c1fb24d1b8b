r"""Takes the translators of finished runs into the package, with their cards.

python plugins/pretrained/refresh.py mnist_conv_to_conv=runs/learned_conv \
    mnist_conv_to_mlp=runs/learned_seeds_mlp/1 mnist_conv_to_attn=runs/learned_seeds_attn/1

Of several seeds the one that did best on the selection hosts.
"""

from __future__ import annotations

import sys
from pathlib import Path

from paramtrans import PretrainedTranslator, load_translator
from paramtrans.runs import folder as run_folder
from paramtrans.translators import card

PACKAGE = Path(__file__).parent / "paramtrans_pretrained"


def main(named_runs: list[str]) -> None:
    for named in named_runs:
        name, _, folder = named.partition("=")
        record, evaluation = run_folder.read_finished(Path(folder))
        card_ = card.of_run(record, evaluation).model_copy(update={"name": name})
        PretrainedTranslator(load_translator(folder), card_).save_pretrained(PACKAGE / name)


if __name__ == "__main__":
    main(sys.argv[1:])
