"""Translators ready to use, the way the field saves and loads models: `from_pretrained` and `save_pretrained`."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from paramtrans.api.context import Context
from paramtrans.api.stacking import Params
from paramtrans.api.translator import Translator
from paramtrans.plugins.manager import components
from paramtrans.plugins.registry import Registry
from paramtrans.translators import card as cards
from paramtrans.translators.base import LearnedTranslator
from paramtrans.translators.card import Card
from paramtrans.translators.saving import find_translator, load_translator, name_of, save_translator


class PretrainedTranslator(Translator):
    """A translator with what is known about it.

    >>> from paramtrans import PretrainedTranslator
    >>> translator = PretrainedTranslator.from_pretrained("runs/mnist_conv_to_conv")  # doctest: +SKIP
    >>> translator.card.results["methods"]["translated"]["mean"]  # doctest: +SKIP
    """

    def __init__(self, translator: Translator, card: Card | None = None) -> None:
        super().__init__(translator.options, translator.source, translator.target)
        self.translator, self.card = translator, card

    def translate(self, source: Params, context: Context | None = None) -> Params:
        return self.translator.translate(source, context)

    def save_pretrained(self, save_directory: str | Path, *, registry: Registry | None = None) -> None:
        """Write a folder that `from_pretrained` and `load_translator` read; with a card where there is one.

        Args:
            save_directory: The folder; made if need be.
            registry: Where the names of components are looked up; all plugins that are installed unless given.

        Raises:
            StoreError: the folder cannot be written.
            UnknownName: no plugin announces one of its components.
        """
        folder, registry = Path(save_directory), registry or components()
        inner = self.translator
        targets = inner.families if isinstance(inner, LearnedTranslator) else (inner.target,)
        source, target, *further = (name_of("block_adapter", adapter, registry) for adapter in (inner.source, *targets))
        save_translator(folder, inner, name_of("translator", inner, registry).name, source, target, further)
        if self.card is not None:
            cards.write(folder, self.card)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, *, registry: Registry | None = None) -> Self:
        """From a folder, or by the name of one that a plugin brings; from a hub: `paramtrans.hub.HubTranslator`.

        Nothing is unpickled, and no file can name code: components are looked up among the installed plugins.

        Args:
            pretrained_model_name_or_path: The folder, that of a run, or the name.
            registry: Where components are looked up; all plugins that are installed unless given.

        Returns:
            The translator with its card.

        Raises:
            StoreError: the folder is missing, damaged or too new.
        """
        registry = registry or components()
        folder = find_translator(pretrained_model_name_or_path, registry)
        return cls(load_translator(folder, registry), cards.read(folder))
