"""A few lines of Python by which a class of an installed library builds a network and reads its parameters."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import nn

from paramtrans.errors import ConfigError

WEIGHTS = "model.safetensors"
"""The file of parameters, beside the code."""
CODE = '''"""A smaller {kind}: `load()` builds it and reads its parameters, without need of paramtrans."""

from pathlib import Path

{imports}


def load():
    """The network, in eval mode."""
    network = {call}
    network.load_state_dict(safetensors.torch.load_file(Path(__file__).with_name("{weights}")))
    return network.eval()
'''


def loading_code(kind: type[nn.Module], arguments: Mapping[str, Any]) -> str:
    """A module with a function `load()`.

    Args:
        kind: The network's class.
        arguments: What it is called with; those that stand in its signature as they are are left out.

    Raises:
        ConfigError: an argument has no form in code.
    """
    defaults = inspect.signature(kind).parameters
    modules = {"safetensors.torch"}
    given = [
        f"{name}={_expression(value, modules)}"
        for name, value in arguments.items()
        if name not in defaults or value is not defaults[name].default
    ]
    call = f"{_expression(kind, modules)}({', '.join(given)})"
    imports = "\n".join(f"import {module}" for module in sorted(modules))
    return CODE.format(kind=kind.__name__, imports=imports, call=call, weights=WEIGHTS)


def _expression(value: Any, modules: set[str]) -> str:
    """Code for a value; the modules that it needs are added."""
    if value is None or type(value) in (bool, int, float, str):
        return repr(value)
    if type(value) in (list, tuple):
        items = ", ".join(_expression(item, modules) for item in value)
        return f"[{items}]" if type(value) is list else f"({items}{',' if len(value) == 1 else ''})"
    if isinstance(value, partial):
        modules.add("functools")
        arguments = [_expression(item, modules) for item in (value.func, *value.args)]
        arguments += [f"{name}={_expression(item, modules)}" for name, item in value.keywords.items()]
        return f"functools.partial({', '.join(arguments)})"
    if (inspect.isclass(value) or inspect.isfunction(value)) and value.__qualname__.isidentifier():
        modules.add(value.__module__)
        return f"{value.__module__}.{value.__qualname__}"
    raise ConfigError([f"--stock: an argument of the network's class ({value!r:.60}) has no form in code"])
