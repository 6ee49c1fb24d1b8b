"""Sections of a run's page."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from paramtrans.api.options import BaseOptions, Configurable


class ReportSection(Configurable, ABC):
    """A section of `report.html`, behind those that every run has."""

    title: ClassVar[str]
    """Its heading."""

    def __init__(self, options: BaseOptions) -> None:
        self.options = options

    @abstractmethod
    def html(self, run: Mapping[str, Any], evaluation: Mapping[str, Any]) -> str:
        """What stands below the heading, as HTML; nothing to leave the section out.

        The page allows no scripts and loads nothing. What is put into it as it is has to be escaped
        (`markupsafe.escape`, `html.escape`).

        Args:
            run: What `run.json` says.
            evaluation: What `evaluation.json` says.

        Returns:
            HTML.
        """
