"""What is written of a finished run to be read: its page, and the card of its translator. They cost no result."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from paramtrans.api.records import Evaluation, History, RunRecord
from paramtrans.errors import ParamtransError
from paramtrans.evaluation.comparison import Comparison
from paramtrans.report import html
from paramtrans.runs.folder import RunFolder
from paramtrans.translators import card
from paramtrans.utils.boundary import reason

logger = logging.getLogger(__name__)


def write(
    folder: RunFolder,
    record: RunRecord,
    result: Evaluation,
    history: History | None,
    comparison: Comparison,
    sections: Sequence[Any] = (),
) -> None:
    """Write both. Where one cannot be made of what a task's data are, a warning says so and the run goes on."""
    epochs = [{"epoch": n, **metrics} for n, metrics in enumerate(history.epochs if history else [], 1)]
    _try(folder, "report.html", lambda: html.write(folder.path, result, record, epochs, _maps(comparison), sections))
    if comparison.translator is not None:
        translator = folder.file("translator")
        _try(folder, "translator/card.json", lambda: card.write(translator, card.of_run(record, result)))


def _maps(comparison: Comparison) -> dict[str, Any]:
    """Feature maps to look at; none where they cannot be made."""
    try:
        return dict(comparison.feature_maps())
    except (ParamtransError, OSError):
        raise
    except Exception as error:
        logger.warning("report.html: has no feature maps: %s: %s", type(error).__name__, reason(error))
        return {}


def _try(folder: RunFolder, name: str, make: Callable[[], object]) -> None:
    try:
        make()
    except (ParamtransError, OSError):  # a full disk is told, and the run goes on from here
        raise
    except Exception as error:
        why = f"{type(error).__name__}: {reason(error)}"
        logger.warning("%s: is left out (%s); all results stand in evaluation.json", folder.file(name), why)
