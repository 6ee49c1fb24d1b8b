"""Blocks that take the place of parts: of the size that is asked for, by a closed form or at random."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from paramtrans.api.adapter import BlockAdapter
from paramtrans.api.modules import initial
from paramtrans.errors import ConfigError, ParamtransError, SpecMismatch
from paramtrans.evaluation.costs import parameters
from paramtrans.networks.loading.architectures import named_options
from paramtrans.networks.parts.finding import NetworkPart
from paramtrans.networks.parts.running import in_float32
from paramtrans.networks.widths import largest
from paramtrans.plugins.registry import Registry
from paramtrans.utils.boundary import reason
from paramtrans.utils.precision import HALF


def target_for(part: NetworkPart, text: str, ratio: float | None, registry: Registry) -> BlockAdapter:
    """The block that takes a part's place, of the size that is asked for.

    Args:
        part: The part.
        text: Name of an adapter, with options: `NAME?hidden=8&kernel=5`.
        ratio: The largest share of the part's parameters.
        registry: Where the name is known.

    Raises:
        SpecMismatch: it does not fit.
    """
    name, options = named_options(text)
    path = part.part.path
    kind: type[BlockAdapter] = registry.load("block_adapter", name)
    try:
        with _as_refusal("its options_for raises"):
            options = {**kind.options_for(in_float32(part.part)), **options}
        target: BlockAdapter = registry.create("block_adapter", name, **options)
    except (ConfigError, SpecMismatch) as error:
        hint = _hint(part, name, kind, options) if isinstance(error, ConfigError) else ""
        raise SpecMismatch(f"{path}: {name} cannot take its place: {error}{hint}") from error
    target = target if ratio is None else _sized(target, ratio * parameters(part.part.module), path)
    entering, leaving = part.part.entering, part.part.leaving
    with torch.device("meta"), torch.no_grad():
        try:
            shape = target.module().eval()(torch.empty(entering.shape)).shape
        except Exception as error:
            raise SpecMismatch(f"{path}: {name} does not take {list(entering.shape)}: {error}") from error
    if shape != leaving.shape:
        raise SpecMismatch(f"{path}: {name} makes {list(shape)} of {list(entering.shape)}, not {list(leaving.shape)}")
    return target


def _hint(part: NetworkPart, name: str, target: type[BlockAdapter], options: Mapping[str, Any]) -> str:
    """What to do about options that what the part computes does not say."""
    fields = target.Options.model_fields.items()
    missing = [option for option, field in fields if field.is_required() and option not in options]
    if not missing:
        return ""
    kind, given = type(part.part.module).__name__, "&".join(f"{option}=VALUE" for option in missing)
    half = part.part.entering.dtype in HALF
    instead = "translate it in float32, or" if half else "so"
    unsaid = f"does not say them{' in half precision' if half else ''}"
    return f" (what this {kind} computes {unsaid}, {instead} give the options yourself: {name}?{given})"


def _sized(target: BlockAdapter, limit: float, path: str) -> BlockAdapter:
    """The target with the largest hidden sizes at which it has no more than `limit` parameters."""
    groups = {group.name: group.size for group in target.spec.symmetries}

    def sized(share: float) -> BlockAdapter:
        return target.with_sizes({name: max(1, round(share * size)) for name, size in groups.items()})

    share = largest(lambda share: sized(share).spec.parameters <= limit)
    if share is None:
        smallest = sized(1e-9).spec.parameters
        raise SpecMismatch(f"{path}: the smallest such block has {smallest:,} parameters, more than {int(limit):,}")
    return sized(share)


@contextmanager
def _as_refusal(what: str) -> Iterator[None]:
    """What a stranger's adapter raises for a part is a reason why it cannot take this place."""
    try:
        yield
    except ParamtransError:
        raise
    except Exception as error:
        raise SpecMismatch(f"{what} ({type(error).__name__}: {reason(error)})") from error


def start_block(part: NetworkPart, target: BlockAdapter, seed: int) -> tuple[nn.Module, str]:
    """The block that is fitted to a part: by the closed form of its adapter where there is one, else at random.

    Args:
        part: The part.
        target: The adapter of the block.
        seed: For a block at random.

    Returns:
        The block, and `closed form` or `random`.

    Raises:
        SpecMismatch: the adapter has no start for such a part.
    """
    module, what = target.module().eval(), f"{part.part.path}: {type(target).__name__} cannot take its place: its"
    with _as_refusal(f"{what} warm_start raises"):
        params = target.warm_start(in_float32(part.part))
    state, expected = params or initial(target.module, [seed]), module.state_dict()
    for name, tensor in state.items():
        if name in expected and tensor.shape[1:] != expected[name].shape:
            wanted = [1, *expected[name].shape]
            raise SpecMismatch(f"{what} warm_start gives {name} as {list(tensor.shape)}, where {wanted} is expected")
    module.load_state_dict({name: tensor[0] for name, tensor in state.items()}, strict=False)
    return module.to(part.part.entering), "random" if params is None else "closed form"
