"""Pages and figures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paramtrans.utils.lazy import face

if TYPE_CHECKING:
    from paramtrans.report.findings import headline as headline, markdown_table as markdown_table
else:
    __getattr__, __dir__, __all__ = face(
        __name__,
        {
            "findings": ["headline", "markdown_table"],
        },
    )
