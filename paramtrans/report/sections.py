"""Sections of a run's page that plugins bring."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

if TYPE_CHECKING:
    from paramtrans.api.report_section import ReportSection

logger = logging.getLogger(__name__)


def written(
    sections: Iterable[ReportSection], run: Mapping[str, Any], result: Mapping[str, Any]
) -> list[tuple[str, Markup]]:
    """Heading and content of each section that has any; one that fails is reported and left out."""
    contents = []
    for section in sections:
        try:
            content = section.html(run, result)
        except Exception as error:
            logger.warning("report section %s: %s: %s", section.title, type(error).__name__, error)
            continue
        if content:
            contents.append((section.title, Markup(content)))
    return contents
