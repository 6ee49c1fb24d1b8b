"""A smaller network rebuilt from its record: the numbers and the sizes of tensors that it has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from paramtrans.errors import DataError
from paramtrans.networks.graph.narrow import Setting


def rebuild(network: nn.Module, settings: Iterable[Setting], params: Mapping[str, Tensor]) -> None:
    """Give a fresh network the numbers and the sizes of tensors of a smaller one, in place; raises `DataError` for
    what no translated network can be: tensors or numbers larger than the network's own, or of other kinds."""
    for setting in settings:
        try:
            module = network.get_submodule(setting.module)
        except AttributeError as error:
            raise DataError(f"there is no module {setting.module!r} in this network") from error
        own = vars(module).get(setting.attribute)
        if type(own) is not type(setting.after) or own is None or not _smaller(setting.after, own):
            raise DataError(f"{setting.module}.{setting.attribute}: {setting.after!r} takes the place of {own!r}")
        setattr(module, setting.attribute, setting.after)
    made: dict[int, Tensor] = {}
    for path, module in network.named_modules(remove_duplicate=False):
        for slots in (module._parameters, module._buffers):
            for name, tensor in slots.items():
                wanted = params.get(f"{path}.{name}".lstrip("."))
                if tensor is None or wanted is None or wanted.shape == tensor.shape:
                    continue
                if wanted.ndim != tensor.ndim or any(a > b for a, b in zip(wanted.shape, tensor.shape, strict=True)):
                    raise DataError(f"{path}.{name} is {list(wanted.shape)}, larger than {list(tensor.shape)}")
                if id(tensor) not in made:
                    empty = tensor.detach().new_empty(wanted.shape)
                    trained = isinstance(tensor, nn.Parameter)
                    made[id(tensor)] = nn.Parameter(empty, tensor.requires_grad) if trained else empty
                slots[name] = made[id(tensor)]


def _smaller(after: int | tuple[int, ...], before: Any) -> bool:
    """Whether a number, or a list of numbers, is positive and no larger than another."""
    if isinstance(after, int):
        return bool(0 < after <= before)
    if len(after) != len(before):
        return False
    return all(type(one) is int and 0 < one <= other for one, other in zip(after, before, strict=True))
