"""A network of fewer blocks: those that it repeats are found, those that cost least are left out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from torch import nn

from paramtrans.errors import SpecMismatch
from paramtrans.networks.depth.cheapest import JUDGED_ON, cheapest, count_gone, some_examples
from paramtrans.networks.depth.left_out import LeftOut, feature_errors, leave_out, stand_ins
from paramtrans.networks.depth.repeated import repeated_blocks
from paramtrans.networks.forward.activations import Inputs, first_examples, length, pick_examples
from paramtrans.networks.forward.examples import Examples
from paramtrans.networks.parts.finding import find_parts, seen_on
from paramtrans.networks.parts.placed import Placed
from paramtrans.networks.parts.replacing import STARTED_ON
from paramtrans.networks.parts.targets import start_block, target_for
from paramtrans.plugins.registry import Registry
from paramtrans.utils import seeds
from paramtrans.utils.progress import Reporter


def shorten(
    network: nn.Module, depth: float, pattern: str, batches: Iterable[Inputs], registry: Registry, reporter: Reporter
) -> tuple[nn.Module, list[LeftOut]]:
    """A copy of a network without the blocks that its outputs depend on least.

    Related: ShortGPT (Men et al. 2024, arXiv 2403.03853) and Gromov et al. 2024 (arXiv 2403.17887) leave out layers by
    how little each, or a run of them, turns its features; here it is the network's outputs that count.

    Args:
        network: In eval mode; it is as before afterwards.
        depth: Share of the blocks that stays, from 0 to 1.
        pattern: Patterns of the paths of blocks that may go, between commas.
        batches: Calibration inputs. One in eight of 32 or more does not serve to choose, and is for the errors alone.
        registry: The plugins.
        reporter: Shows the progress.

    Returns:
        The copy, and the records of the blocks that went.

    Raises:
        SpecMismatch: no blocks are repeated, none goes, or the network does not do without.
    """
    examples = Examples(batches)
    _check_some(examples)
    fitted = some_examples(examples.fitted(), JUDGED_ON)
    parts = repeated_blocks(network, pattern, fitted[0])
    going = count_gone(depth, len(parts))
    instead = stand_ins(network, parts, fitted[0], registry)
    chosen = cheapest(network, instead, going, fitted, reporter)
    gone = [part for part in parts if part.part.path in chosen]
    instead = {part.part.path: instead[part.part.path] for part in gone}
    errors = feature_errors(network, instead, examples.held_out())
    return leave_out(network, gone, instead, fitted[0], errors, examples.enough, registry)


def parts_to_replace(
    network: nn.Module,
    depth: float,
    to: Mapping[str, str],
    ratio: float | None,
    batches: Iterable[Inputs],
    seed: int,
    registry: Registry,
    reporter: Reporter,
) -> dict[str, str]:
    """Of the parts that patterns name, those whose blocks cost the network's outputs least, as they start.

    Args:
        network: In eval mode; it is as before afterwards.
        depth: Share of the parts that stays as it is, from 0 to 1.
        to: For patterns of paths the name of a block adapter, with its options behind a question mark.
        ratio: The largest share of a part's parameters that its block may have.
        batches: Calibration inputs. Blocks start from every other one, costs are of the rest.
        seed: For whatever is drawn.
        registry: The plugins.
        reporter: Shows the progress.

    Returns:
        `to` for the paths of these parts.

    Raises:
        SpecMismatch: none is replaced, or blocks begin at random, so that nothing says what they will cost.
    """
    examples = Examples(batches)
    _check_some(examples)
    started_on, judged = _two_parts(list(examples.fitted()))
    blocks, targets = dict[str, nn.Module](), dict[str, str]()
    unfit = "patterns name no parts"
    for number, part in enumerate(find_parts(network, to, started_on)[0]):
        path, text = part.part.path, to[part.pattern]
        try:
            target = target_for(part, text, ratio, registry)
        except SpecMismatch as error:  # it stays as it is
            unfit = str(error)
            continue
        seen = replace(part, part=seen_on(part.part, network, started_on))
        block, start = start_block(seen, target, seeds.derive(seed, "start", number))
        if start == "random":
            raise SpecMismatch(f"depth: {text} begins at random at {path}, so its cost is not known; try linear_map")
        blocks[path], targets[path] = Placed(block, part.calling).eval(), text
    if not blocks:
        raise SpecMismatch(f"depth: there is nothing to choose from: {unfit}")
    chosen = cheapest(network, blocks, count_gone(depth, len(blocks)), judged, reporter)
    return {path: text for path, text in targets.items() if path in chosen}


def _two_parts(batches: list[Inputs]) -> tuple[Inputs, list[Inputs]]:
    """Inputs that blocks start from, of one batch, and others to judge them on, as far as there are others."""
    first, *others = batches
    if others:
        return first_examples(first, STARTED_ON), some_examples(others, JUDGED_ON)
    if length(first) < 2:
        return first, batches
    even, odd = (pick_examples(first, slice(half, None, 2)) for half in range(2))
    return first_examples(even, STARTED_ON), some_examples([odd], JUDGED_ON)


def _check_some(examples: Examples) -> None:
    if not examples.total:
        raise SpecMismatch("depth: give a few unlabelled inputs (calibrate), to see which blocks cost least")
