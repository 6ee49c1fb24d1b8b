"""The beginning of a plugin: a whole distribution from templates, written at once or not at all."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import keyword
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

from paramtrans._version import __version__
from paramtrans.errors import ConfigError, StoreError
from paramtrans.plugins.scaffold_kinds import DEFAULT, KINDS, LIFECYCLE, Kind
from paramtrans.utils.templates import environment

TEMPLATES = Path(__file__).parents[1] / "templates" / "plugin"
NAME = re.compile(r"[a-z][a-z0-9]*([-_.][a-z0-9]+)*", re.ASCII)
MAX_NAME = 60


def new_plugin(name: str, parent: Path, kinds: Sequence[str] = DEFAULT) -> Path:
    """Write a distribution into a new folder of its name.

    Args:
        name: The distribution's.
        parent: The folder that the new one is put in.
        kinds: Those of which there is a beginning in it: names in `scaffold_kinds.NAMES`.

    Returns:
        The folder.

    Raises:
        ConfigError: the name cannot be a distribution's, or is taken.
        StoreError: the folder is there, or cannot be written.
    """
    package = _package(name)
    folder = parent / name
    if folder.exists() or folder.is_symlink():
        raise StoreError(f"{folder}: is there already; choose another name, or --into another folder")
    try:
        with tempfile.TemporaryDirectory(dir=parent, prefix=".paramtrans-new-") as temporary:
            whole = Path(temporary) / name
            _write(whole, name, package, kinds)
            whole.rename(folder)
    except OSError as error:
        reason = error.strerror or error
        raise StoreError(f"{folder}: cannot be written: {reason}; choose --into another folder") from error
    return folder


def _package(name: str) -> str:
    """The import package of a distribution; raises `ConfigError` where there can be none of that name."""
    if not NAME.fullmatch(name) or len(name) > MAX_NAME:
        raise ConfigError(
            [f'plugin name "{name[:MAX_NAME]}": use lower-case letters, digits and -, such as acme-blocks']
        )
    package = re.sub(r"[-.]", "_", name)
    if keyword.iskeyword(package) or keyword.issoftkeyword(package):
        raise ConfigError([f'plugin name "{name}": is a word of Python; add to it, such as {name}-blocks'])
    try:
        importlib.metadata.distribution(name)
        taken = "a distribution of that name is installed"
    except importlib.metadata.PackageNotFoundError:
        taken = "Python has a module of that name" if importlib.util.find_spec(package) else ""
    if taken:
        raise ConfigError([f'plugin name "{name}": {taken}; choose another'])
    return package


def _write(folder: Path, name: str, package: str, kinds: Sequence[str]) -> None:
    """All files of the distribution, rendered."""
    for template, text in rendered(name, package, kinds).items():
        path = folder / template
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def rendered(name: str, package: str, kinds: Sequence[str]) -> dict[str, str]:
    """The files of a distribution with a beginning of each of these kinds, by their path in it."""
    chosen, lifecycle = [kind for kind in KINDS if kind.kind in kinds], LIFECYCLE in kinds
    values = {
        "name": name,
        "package": package,
        "version": __version__,
        "lifecycle": lifecycle,
        "kinds": [_announced(kind, package) for kind in chosen],
        "used": [kind.config.format(_component(kind, package)) for kind in chosen if kind.config],
    }
    left_out = {f"package/{kind.file}.py.jinja" for kind in KINDS if kind not in chosen}
    left_out |= set() if lifecycle else {f"package/{LIFECYCLE}.py.jinja"}
    templates = environment(TEMPLATES)
    wanted = [path for path in templates.list_templates(extensions=["jinja"]) if path not in left_out]
    return {
        path.removesuffix(".jinja").replace("package/", f"{package}/"): templates.get_template(path).render(values)
        for path in wanted
    }


def _announced(kind: Kind, package: str) -> dict[str, str]:
    """What `plugin.py` says of a component."""
    return {
        "kind": kind.kind,
        "component": _component(kind, package),
        "noun": kind.noun,
        "summary": kind.summary,
        "target": f"{kind.file}:{kind.attribute}",
    }


def _component(kind: Kind, package: str) -> str:
    return f"{package}_{kind.file}"
