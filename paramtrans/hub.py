"""Translators from and to a model hub, through huggingface_hub's own mixin: the extra `paramtrans[hub]`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Self

from paramtrans.api.translator import Translator
from paramtrans.errors import DataError
from paramtrans.translators.card import Card
from paramtrans.translators.pretrained import PretrainedTranslator
from paramtrans.translators.saving import DESCRIPTION

try:
    from huggingface_hub import ModelHubMixin, snapshot_download
except ImportError as error:
    raise DataError("paramtrans.hub: huggingface_hub is missing; pip install 'paramtrans[hub]'") from error

__all__ = ["HubTranslator"]

FILES = ("*.json", "*.safetensors", "*.md")
"""What is fetched from a repository; nothing else there is a translator's."""


class HubTranslator(ModelHubMixin, PretrainedTranslator, library_name="paramtrans", tags=["paramtrans"]):  # type: ignore[misc]
    """A `PretrainedTranslator` that `from_pretrained("user/repository")` fetches, and `push_to_hub` sends.

    The mixin asks the hub; files are then read as those of any folder are: checked, and never unpickled.
    """

    def __init__(self, translator: Translator, card: Card | None = None) -> None:
        PretrainedTranslator.__init__(self, translator, card)
        self._hub_mixin_config = None  # the mixin writes no config.json: `translator.json` says it all

    def _save_pretrained(self, save_directory: Path) -> None:
        PretrainedTranslator.save_pretrained(self, save_directory)

    @classmethod
    def _from_pretrained(cls, *, model_id: str, **options: Any) -> Self:
        keys = ("revision", "cache_dir", "force_download", "local_files_only", "token")
        asked: dict[str, Any] = {key: options.get(key) for key in keys if options.get(key) is not None}
        if os.path.isdir(model_id):
            folder = Path(model_id)
        else:
            folder = Path(snapshot_download(model_id, allow_patterns=list(FILES), **asked))
        if not (folder / DESCRIPTION).exists():
            raise DataError(f"{model_id}: holds no {DESCRIPTION}, so it is no translator of paramtrans")
        pretrained = PretrainedTranslator.from_pretrained(folder, registry=options.get("registry"))
        return cls(pretrained.translator, pretrained.card)
