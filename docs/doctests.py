"""Examples in docstrings (`>>> …`) as code on the site. A Griffe extension, named in mkdocs.yml."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

EXAMPLE = re.compile(r"^(>>> .*(?:\n(?!\n).+)*)", re.MULTILINE)


class Doctests(Extension):
    """Puts fences around them."""

    def on_object(self, *, obj: Object, **kwargs: Any) -> None:
        if obj.docstring:
            shown = re.sub(r"\s*# doctest: \+\w+", "", obj.docstring.value)
            obj.docstring.value = EXAMPLE.sub(r"```python\n\1\n```", shown)
