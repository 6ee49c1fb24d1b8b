"""Blocks that a network repeats: modules of one class beside each other that keep the shape of their features."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from string import digits

from torch import nn

from paramtrans.errors import SpecMismatch
from paramtrans.networks.blocks.finding import matches
from paramtrans.networks.blocks.in_place import hooks
from paramtrans.networks.forward.activations import Inputs
from paramtrans.networks.parts.finding import NetworkPart, find_parts

Siblings = tuple[str, type]
"""What blocks beside each other share: where they are, with the beginning of their names, and their class."""


def repeated_blocks(network: nn.Module, pattern: str, batch: Inputs) -> list[NetworkPart]:
    """The blocks that are repeated and could be left out, in the order in which they run.

    Two or more modules of one class beside each other, in a list or with names that differ in a number alone, are
    repeated. Those could go that one tensor enters and one of the same shape leaves. Single layers are none, nor is
    what has hooks. Of blocks inside each other the outer ones count; but a plain `Sequential`, or the only one of its
    kind that keeps the shape, is a stage where there are some inside it or inside one of its kind.

    Args:
        network: A network in eval mode.
        pattern: Patterns of paths, between commas.
        batch: Inputs, of which two are used.

    Raises:
        SpecMismatch: there are none.
    """
    siblings = _siblings(network)
    if not siblings:
        raise SpecMismatch("depth: this network repeats no blocks: no two of one class stand beside each other")
    candidates, refused = find_parts(network, [*siblings], batch, nested=True, by_example=False)
    parts = {part.part.path: part for part in candidates if part.part.entering.shape == part.part.leaving.shape}
    chosen = [path for path in _outermost(network, parts, siblings) if matches(path, pattern)]
    if not chosen:
        reason = next((f"; {path}: {reason}" for path, reason in refused.items() if matches(path, pattern)), "")
        raise SpecMismatch(
            f'depth: no blocks that match "{pattern}" are repeated, each with one tensor in and one of the same shape '
            f"out{reason}"
        )
    return [parts[path] for path in chosen]


def _outermost(network: nn.Module, paths: Iterable[str], siblings: Mapping[str, Siblings]) -> list[str]:
    """Paths of blocks that are not inside others, nor inside of what is of the same class as another."""
    paths = list(paths)
    counts = Counter(siblings[path] for path in paths)
    kinds: set[type] = set()
    chosen = []
    for path in sorted(paths, key=lambda path: path.count(".")):
        alone = counts[siblings[path]] == 1 or siblings[path][1] is nn.Sequential
        alike = [other for other, kind in siblings.items() if kind == siblings[path]]
        stage = alone and any(inner.startswith(f"{other}.") for other in alike for inner in paths)
        outer = [path.rsplit(".", depth)[0] for depth in range(1, path.count(".") + 1)]
        inside = any(
            module_path in chosen or type(network.get_submodule(module_path)) in kinds for module_path in outer
        )
        if not stage and not inside:
            kinds |= {siblings[path][1]} - {nn.Sequential}
            chosen.append(path)
    return [path for path in paths if path in chosen]


def _siblings(network: nn.Module) -> dict[str, Siblings]:
    """Paths of blocks that stand beside others of their class."""
    siblings: dict[str, Siblings] = {}
    for path, parent in network.named_modules():
        kinds = {
            name: (f"{path}.{name.rstrip(digits)}", type(child))
            for name, child in parent.named_children()
            if name[-1] in digits and any(any(True for _ in inner.parameters()) for inner in child.children())
        }
        counts = Counter(kinds.values())
        for name, kind in kinds.items():
            if counts[kind] > 1 and not any(hooks(module) for module in parent.get_submodule(name).modules()):
                siblings[f"{path}.{name}".lstrip(".")] = kind
    return siblings
