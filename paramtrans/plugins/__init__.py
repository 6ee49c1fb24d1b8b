"""Finding plugins, and looking up what they announce."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paramtrans.utils.lazy import face

if TYPE_CHECKING:
    from paramtrans.plugins.hookspecs import HOOK_VERSION as HOOK_VERSION, hookimpl as hookimpl
    from paramtrans.plugins.manager import Plugins as Plugins, components as components, plugins as plugins
    from paramtrans.plugins.registry import Entry as Entry, Provider as Provider, Registry as Registry
else:
    __getattr__, __dir__, __all__ = face(
        __name__,
        {
            "hookspecs": ["HOOK_VERSION", "hookimpl"],
            "manager": ["Plugins", "components", "plugins"],
            "registry": ["Entry", "Provider", "Registry"],
        },
    )
