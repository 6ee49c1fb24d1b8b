"""Files on disk: written whole, sealed by a checksum, and read without pickle."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paramtrans.utils.lazy import face

if TYPE_CHECKING:
    from paramtrans.storage.cache import cache_dir as cache_dir
    from paramtrans.storage.files import (
        Damaged as Damaged,
        load_params as load_params,
        read_json as read_json,
        save_params as save_params,
        write_json as write_json,
    )
    from paramtrans.storage.shards import Shards as Shards
else:
    __getattr__, __dir__, __all__ = face(
        __name__,
        {
            "cache": ["cache_dir"],
            "files": ["Damaged", "load_params", "read_json", "save_params", "write_json"],
            "shards": ["Shards"],
        },
    )
