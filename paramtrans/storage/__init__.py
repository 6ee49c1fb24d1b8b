"""Files on disk: written whole, sealed by a checksum, and read without pickle."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paramtrans.utils.lazy import face

if TYPE_CHECKING:
    from paramtrans.storage.cache import cache_dir as cache_dir
    from paramtrans.storage.json_files import read_json as read_json, write_json as write_json
    from paramtrans.storage.sealed_params import load_params as load_params, save_params as save_params
    from paramtrans.storage.shards import Shards as Shards
else:
    __getattr__, __dir__, __all__ = face(
        __name__,
        {
            "cache": ["cache_dir"],
            "json_files": ["read_json", "write_json"],
            "sealed_params": ["load_params", "save_params"],
            "shards": ["Shards"],
        },
    )
