"""What translates the blocks of a network: translators by name, made for each pair of blocks, or a trained one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from torch import nn

from paramtrans.api.adapter import BlockAdapter
from paramtrans.api.translator import Translator
from paramtrans.errors import SpecMismatch, UnknownName
from paramtrans.networks.blocks.finding import find_blocks
from paramtrans.plugins.registry import Registry
from paramtrans.translators.base import LearnedTranslator
from paramtrans.translators.saving import load_translator
from paramtrans.utils.near import nearest

TranslatorFactory = Callable[[BlockAdapter, BlockAdapter], Translator]
"""Makes the translator for a pair of blocks, or raises `SpecMismatch`."""


def trained_translator(
    translator: str | Path, registry: Registry, options: Mapping[str, Any] = MappingProxyType({})
) -> Translator | None:
    """The trained translator of this name or in this folder; None for the name of one that needs no training.

    Args:
        translator: A name or a folder.
        registry: The plugins that translators come from.
        options: `target` names the family of target blocks, where the translator writes several; by default the first.

    Raises:
        SpecMismatch: the translator does not write this family, or takes no such option.
    """
    if not is_trained(translator, registry):
        return None
    if unknown := options.keys() - {"target"}:
        raise SpecMismatch(f"options: a trained translator has its own ({', '.join(sorted(unknown))}); leave them out")
    saved = load_translator(translator, registry)
    return _writing(saved, options["target"], registry) if "target" in options else saved


def _writing(saved: Translator, name: str, registry: Registry) -> Translator:
    """A trained translator as it writes the family of target blocks of this name."""
    targets = saved.families if isinstance(saved, LearnedTranslator) else (saved.target,)
    names = [registry.name_of("block_adapter", type(target)) for target in targets]
    if name not in names:
        raise SpecMismatch(f"options: target: the translator was trained to write {', '.join(names)}, and not {name}")
    chosen = targets[names.index(name)]
    if chosen is saved.target or not isinstance(saved, LearnedTranslator):
        return saved
    return saved.resized(saved.source, chosen)


def is_trained(translator: str | Path, registry: Registry) -> bool:
    """Whether this names a translator that somebody trained.

    Args:
        translator: A name or a folder.
        registry: The plugins that translators come from.

    Raises:
        UnknownName: the name is nearly that of a trained translator.
    """
    if isinstance(translator, Path) or {"/", "\\"} & {*translator}:
        return True
    pretrained = {entry.name for entry in registry.of_kind("pretrained_translator")}
    if translator.replace("-", "_") in pretrained:
        return True
    _check_spelling(translator, pretrained, registry)
    return False


def trained_for(network: nn.Module, pattern: str, registry: Registry) -> list[str]:
    """Names of the trained translators that plugins bring for blocks of a network.

    Args:
        network: The network.
        pattern: Patterns of the paths of blocks, between commas.
        registry: The plugins.
    """
    names = []
    for entry in registry.of_kind("pretrained_translator"):
        source = load_translator(entry.name, registry).source
        if any(block.adapter is source for block in find_blocks(network, registry, pattern, source)):
            names.append(entry.name)
    return names


def _check_spelling(name: str, pretrained: Iterable[str], registry: Registry) -> None:
    """Raise `UnknownName` for what was meant to be the name of a trained translator."""
    untrained = {entry.name for entry in registry.of_kind("translator")}
    nearest_name = None if name in untrained else nearest(name, {*untrained, *pretrained})
    if nearest_name and nearest_name not in untrained:
        raise UnknownName(f'unknown translator "{name}"; did you mean "{nearest_name}"?')


def check_unsized(trained: Translator, *sizes: object) -> None:
    """Check that no size is asked of a translator that writes one size alone.

    Args:
        trained: A trained translator.
        *sizes: What asks for a size; None where nothing does.

    Raises:
        SpecMismatch: a size is asked for.
    """
    if any(size is not None for size in sizes):
        raise SpecMismatch(
            f"a trained translator writes blocks of its own size ({kind_and_sizes(trained.target)}); leave out "
            "what asks for another (ratio, widths; --ratio, --parameters, --flops)"
        )


def translator_factory(
    translator: str | Path | Translator, options: dict[str, Any], registry: Registry
) -> TranslatorFactory:
    """What makes the translator for each pair of blocks.

    Args:
        translator: A name, the folder of a saved translator, or a trained one.
        options: Of the translator.
        registry: The plugins that translators come from.

    Raises:
        SpecMismatch: the name is that of a translator which has to be trained first.
    """
    saved = translator if isinstance(translator, Translator) else trained_translator(translator, registry, options)
    if saved is not None:
        return _fitting(saved)
    assert isinstance(translator, str)  # of a folder there is a saved one
    if registry.load("translator", translator).learns:
        raise SpecMismatch(
            f"translator {translator} has to be trained first; give the folder of a trained one, or use a closed form "
            "such as refit"
        )
    return lambda source, target: registry.create("translator", translator, source, target, **options)


def _fitting(saved: Translator) -> TranslatorFactory:
    """What gives a trained translator, for blocks of its own sizes alone."""

    def checked(source: BlockAdapter, target: BlockAdapter) -> Translator:
        for side, trained_on, block in (("source", saved.source, source), ("target", saved.target, target)):
            if trained_on.spec != block.spec:
                raise SpecMismatch(unfit_reason(side, trained_on, block))
        return saved

    return checked


def unfit_reason(side: str, trained_on: BlockAdapter, block: BlockAdapter) -> str:
    """Why a trained translator cannot be used on one side of a pair of blocks.

    Args:
        side: `source` or `target`.
        trained_on: The adapter that it was trained for on this side.
        block: The adapter that it is to be used for.
    """
    return (
        f"the translator was trained for another {side} block ({kind_and_sizes(trained_on)}) than this one "
        f"({kind_and_sizes(block)}); take one trained on such blocks, or a closed form such as refit"
    )


def kind_and_sizes(adapter: BlockAdapter) -> str:
    """A block's class, channels and hidden units, for messages."""
    sizes = ", ".join(f"{group.size} {group.name}" for group in adapter.spec.symmetries)
    return f"{type(adapter).__name__}, {adapter.options.channels} channels{', ' if sizes else ''}{sizes}"
