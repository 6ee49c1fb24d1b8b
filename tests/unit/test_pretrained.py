"""Pretrained translators: loaded by name, saved as the field saves, with a card that repeats what was measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from paramtrans import Context, PretrainedTranslator, load_translator
from paramtrans.api.modules import initial
from paramtrans.api.records import Evaluation, RunRecord
from paramtrans.backends.host_runner import HostRunner, untrained
from paramtrans.errors import Damaged, ParamtransError, StoreError
from paramtrans.plugins import components
from paramtrans.storage import json_files
from paramtrans.translators import card

NAMES = [entry.name for entry in components().of_kind("pretrained_translator")]
GOLDEN = Path(__file__).parents[1] / "golden" / "run"


@pytest.fixture
def written_card() -> card.Card:
    """The card of the golden run."""
    record, evaluation = (json.loads((GOLDEN / name).read_text()) for name in ("run.json", "evaluation.json"))
    return card.of_run(RunRecord.model_validate(record), Evaluation.model_validate(evaluation))


@pytest.fixture
def ours(written_card: card.Card) -> PretrainedTranslator:
    """A small translator with a card."""
    return PretrainedTranslator(load_translator(GOLDEN), written_card)


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_translator_translates_at_once(name: str) -> None:
    translator = PretrainedTranslator.from_pretrained(name.replace("_", "-"))
    assert translator.card is not None
    task = components().create("task", **translator.card.config["task"])
    hosts = untrained(task, translator.source, [1, 2])
    runner = HostRunner(task, translator.source, translator.target)
    blocks = translator.translate(hosts.source, Context(hosts, runner))
    assert list(blocks) == list(translator.target.spec.names)
    assert all(len(tensor) == 2 and tensor.isfinite().all() for tensor in blocks.values())


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_translator_is_small_and_says_what_it_is_worth(name: str) -> None:
    folder = components().load("pretrained_translator", name)
    assert sum(path.stat().st_size for path in folder.iterdir()) < 1_000_000
    card_ = PretrainedTranslator.from_pretrained(name).card
    assert card_ is not None and card_.name == name and card_.config["task"]["name"] == "mnist"
    methods = card_.results["methods"]
    assert methods["translated"]["mean"] > methods["zero_block"]["mean"]
    page = (folder / "README.md").read_text()
    assert f"{methods['translated']['mean']:.1f}" in page and page == card.page(card_)


def test_saving_and_loading_changes_nothing(ours: PretrainedTranslator, tmp_path: Path) -> None:
    ours.save_pretrained(tmp_path / "saved")
    theirs = PretrainedTranslator.from_pretrained(str(tmp_path / "saved"))
    blocks = initial(ours.source.module, [1, 2])
    first, second = ours.translate(blocks), theirs.translate(blocks)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert theirs.card == ours.card


def test_a_card_is_found_in_its_folder_and_only_there(written_card: card.Card, tmp_path: Path) -> None:
    card.write(tmp_path, written_card)
    assert card.read(tmp_path) == written_card
    assert card.read(tmp_path / "nowhere") is None


@pytest.mark.parametrize("content", [b"", b"[]", b"\x80\x04cos\n", b'{"format": 1, "name": "x"}', b"{" * 9])
def test_a_damaged_card_is_refused(ours: PretrainedTranslator, tmp_path: Path, content: bytes) -> None:
    ours.save_pretrained(tmp_path)
    (tmp_path / card.CARD).write_bytes(content)
    with pytest.raises(Damaged, match=r"card\.json"):
        PretrainedTranslator.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("methods", {"translated": {"mean": 3}}),
        ("methods", []),
        ("blocks", {"source": None, "target": None}),
        ("translator", "mixer"),
    ],
)
def test_a_card_that_says_something_else_is_refused(
    ours: PretrainedTranslator, tmp_path: Path, part: str, value: object
) -> None:
    ours.save_pretrained(tmp_path)
    document = json_files.unsealed(tmp_path / card.CARD, json.loads((tmp_path / card.CARD).read_text()))
    document["results"][part] = value
    json_files.write_sealed(tmp_path / card.CARD, document)
    with pytest.raises(Damaged, match=rf"card\.json: is no card of a translator: results\.{part}"):
        PretrainedTranslator.from_pretrained(tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_a_card_that_is_read_and_written_again_is_the_same(tmp_path: Path, name: str) -> None:
    folder = components().load("pretrained_translator", name)
    card_ = card.read(folder)
    assert card_ is not None
    card.write(tmp_path, card_)
    assert json_files.read_json(tmp_path / card.CARD) == json_files.read_json(folder / card.CARD)


def test_a_card_of_a_later_version_is_told_with_what_to_do(ours: PretrainedTranslator, tmp_path: Path) -> None:
    ours.save_pretrained(tmp_path)
    document = json_files.unsealed(tmp_path / card.CARD, json.loads((tmp_path / card.CARD).read_text()))
    json_files.write_sealed(tmp_path / card.CARD, {**document, "format": card.FORMAT + 1})
    with pytest.raises(StoreError, match=r"card\.json: has format 2, .* reads 1; update paramtrans"):
        PretrainedTranslator.from_pretrained(tmp_path)


def test_a_card_that_is_a_link_to_nowhere_is_not_taken_for_none(ours: PretrainedTranslator, tmp_path: Path) -> None:
    ours.save_pretrained(tmp_path)
    (tmp_path / "card.json").unlink()
    assert PretrainedTranslator.from_pretrained(tmp_path).card is None
    (tmp_path / "card.json").symlink_to("nowhere")
    with pytest.raises(StoreError, match=r"card\.json"):
        PretrainedTranslator.from_pretrained(tmp_path)


def test_names_in_a_card_are_data(written_card: card.Card) -> None:
    nasty = "[click](javascript:x)\n# <script>`"
    page = card.page(written_card.model_copy(update={"name": nasty, "plugins": [nasty]}))
    assert "<script>" not in page.replace("\\<script\\>", "") and "\n# <" not in page and "[click](" not in page


def test_what_is_not_there_is_answered_with_what_there_is() -> None:
    with pytest.raises(StoreError, match=r"mnist_conv_to_nothing/translator\.json.*pretrained"):
        PretrainedTranslator.from_pretrained("mnist_conv_to_nothing")


def test_a_translator_of_no_plugin_cannot_be_saved_by_name(ours: PretrainedTranslator, tmp_path: Path) -> None:
    ours.translator.__class__ = type("Unknown", (type(ours.translator),), {})
    with pytest.raises(ParamtransError, match="no plugin announces"):
        ours.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()
