"""What translators are built on: bases, chains, and the files that they are saved in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paramtrans.utils.lazy import face

if TYPE_CHECKING:
    from paramtrans.translators.base import LearnedTranslator as LearnedTranslator, TokenTranslator as TokenTranslator
    from paramtrans.translators.card import Card as Card
    from paramtrans.translators.chain import Filled as Filled, Method as Method
    from paramtrans.translators.pretrained import PretrainedTranslator as PretrainedTranslator
    from paramtrans.translators.saving import load_translator as load_translator, save_translator as save_translator
else:
    __getattr__, __dir__, __all__ = face(
        __name__,
        {
            "base": ["LearnedTranslator", "TokenTranslator"],
            "card": ["Card"],
            "chain": ["Filled", "Method"],
            "pretrained": ["PretrainedTranslator"],
            "saving": ["load_translator", "save_translator"],
        },
    )
