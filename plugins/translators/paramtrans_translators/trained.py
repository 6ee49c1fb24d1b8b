"""A translator that another run has trained."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pydantic import Field

from paramtrans import load_translator
from paramtrans.api.adapter import BlockAdapter
from paramtrans.api.context import Context
from paramtrans.api.options import BaseOptions, Trials
from paramtrans.api.stacking import Params
from paramtrans.api.translator import Translator
from paramtrans.errors import ConfigError, SpecMismatch, StoreError
from paramtrans.plugins.registry import Registry
from paramtrans.translators.base import LearnedTranslator


class TrainedOptions(BaseOptions):
    """Where it is."""

    folder: str = Field(min_length=1)
    """The run's folder, or that of a translator alone."""


class Trained(Translator):
    """Loads a translator, and fits it to blocks of other sizes where it can."""

    Options: ClassVar[type[BaseOptions]] = TrainedOptions
    trials: ClassVar[Trials] = ()
    """It needs a run that is finished."""

    needs_registry: ClassVar[bool] = True

    def __init__(
        self, options: TrainedOptions, source: BlockAdapter, target: BlockAdapter, *, registry: Registry | None = None
    ) -> None:
        super().__init__(options, source, target)
        folder = Path(options.folder)
        inner_folder = folder / "translator"
        try:
            self.translator = load_translator(inner_folder if inner_folder.is_dir() else folder, registry)
        except StoreError as error:
            raise ConfigError([f"folder: {error}"]) from error
        if not _alike(self.translator, source, target):
            if not isinstance(self.translator, LearnedTranslator):
                raise SpecMismatch(f"the translator in {folder} was made for other blocks")
            self.translator = self.translator.resized(source, target)

    def translate(self, source: Params, context: Context | None = None) -> Params:
        return self.translator.translate(source, context)


def _alike(translator: Translator, source: BlockAdapter, target: BlockAdapter) -> bool:
    return translator.source.reading == source.reading and translator.target.spec == target.spec
