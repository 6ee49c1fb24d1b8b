"""What a run's documents say, as records."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from paramtrans.api.records import Evaluation

GOLDEN = Path(__file__).parents[1] / "golden" / "run"


def test_a_record_says_what_the_file_says_and_nothing_more() -> None:
    document = json.loads((GOLDEN / "evaluation.json").read_text())
    assert Evaluation.model_validate(document).document() == document


def test_keys_of_the_file_are_found_as_in_it_and_nothing_else_is() -> None:
    later = json.loads((GOLDEN / "evaluation.json").read_text()) | {"further": {"a": 1}}
    record = Evaluation.model_validate(later)
    assert record["methods"]["translated"]["mean"] == record.methods["translated"].mean
    assert record["further"] == {"a": 1} and record["diagnosis"] is None
    for name in ("document", "model_dump", "nothing"):
        with pytest.raises(KeyError, match=name):
            record[name]
