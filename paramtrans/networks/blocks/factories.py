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

Maker = Callable[[BlockAdapter, BlockAdapter], Translator]
"""Makes the translator for a pair of blocks, or raises `SpecMismatch`."""


def trained_translator(
    translator: str | Path, registry: Registry, options: Mapping[str, Any] = MappingProxyType({})
) -> Translator | None:
    """The trained translator of this name or in this folder; None for the name of one that needs no training.

    Where it writes several families of target blocks, the option `target` is the name of one of them; else it is the
    first. Raises `SpecMismatch` for one that it does not write, and for other options.
    """
    if not is_trained(translator, registry):
        return None
    if others := options.keys() - {"target"}:
        raise SpecMismatch(f"options: a trained translator has its own ({', '.join(sorted(others))}); leave them out")
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
    """Whether a translator is named that somebody trained; raises `UnknownName` for one that is nearly named."""
    if isinstance(translator, Path) or {"/", "\\"} & {*translator}:
        return True
    pretrained = {entry.name for entry in registry.of_kind("pretrained_translator")}
    if translator.replace("-", "_") in pretrained:
        return True
    _check_spelling(translator, pretrained, registry)
    return False


def trained_for(network: nn.Module, pattern: str, registry: Registry) -> list[str]:
    """Names of the trained translators, of those that plugins bring, whose source block is one of the network's."""
    found = []
    for entry in registry.of_kind("pretrained_translator"):
        own = load_translator(entry.name, registry).source
        if any(block.adapter is own for block in find_blocks(network, registry, pattern, own)):
            found.append(entry.name)
    return found


def _check_spelling(name: str, pretrained: Iterable[str], registry: Registry) -> None:
    """Raise `UnknownName` for what was meant to be the name of a trained translator."""
    own = {entry.name for entry in registry.of_kind("translator")}
    near = None if name in own else nearest(name, {*own, *pretrained})
    if near and near not in own:
        raise UnknownName(f'unknown translator "{name}"; did you mean "{near}"?')


def check_unsized(trained: Translator, *sizes: object) -> None:
    """Raise `SpecMismatch` where some size is asked of a translator that writes one alone."""
    if any(size is not None for size in sizes):
        raise SpecMismatch(
            f"a trained translator writes blocks of its own size ({named(trained.target)}); leave out what asks for "
            "another (ratio, widths; --ratio, --parameters, --flops)"
        )


def maker(translator: str | Path | Translator, options: dict[str, Any], registry: Registry) -> Maker:
    """For a name, the folder of a saved translator, or a trained one."""
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


def _fitting(saved: Translator) -> Maker:
    """Of a trained translator, for blocks of its own sizes alone."""

    def fitting(source: BlockAdapter, target: BlockAdapter) -> Translator:
        for side, own, block in (("source", saved.source, source), ("target", saved.target, target)):
            if own.spec != block.spec:
                raise SpecMismatch(unfit(side, own, block))
        return saved

    return fitting


def unfit(side: str, own: BlockAdapter, block: BlockAdapter) -> str:
    """Why a trained translator cannot be used on one side of a pair of blocks."""
    return (
        f"the translator was trained for another {side} block ({named(own)}) than this one ({named(block)}); take "
        "one trained on such blocks, or a closed form such as refit"
    )


def named(adapter: BlockAdapter) -> str:
    """A block's class and sizes."""
    sizes = ", ".join(f"{group.size} {group.name}" for group in adapter.spec.symmetries)
    return f"{type(adapter).__name__}, {adapter.options.channels} channels{', ' if sizes else ''}{sizes}"
