"""The beginning of a plugin: a whole distribution from templates, written at once or not at all."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import keyword
import re
import tempfile
from pathlib import Path

from paramtrans._version import __version__
from paramtrans.errors import ConfigError, StoreError

TEMPLATES = Path(__file__).parents[1] / "templates" / "plugin"
NAME = re.compile(r"[a-z][a-z0-9]*([-_.][a-z0-9]+)*", re.ASCII)
MAX_NAME = 60


def new_plugin(name: str, parent: Path) -> Path:
    """Write the distribution `name` into a new folder of that name below `parent`; returns the folder.

    Raises `ConfigError` for a name that cannot be a distribution's or is taken, `StoreError` where the folder is there
    or cannot be written.
    """
    package = _package(name)
    folder = parent / name
    if folder.exists() or folder.is_symlink():
        raise StoreError(f"{folder}: is there already; choose another name, or --into another folder")
    try:
        with tempfile.TemporaryDirectory(dir=parent, prefix=".paramtrans-new-") as temporary:
            whole = Path(temporary) / name
            _write(whole, name, package)
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


def _write(folder: Path, name: str, package: str) -> None:
    """All files of the distribution, rendered."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # Python and TOML, not HTML; the name is checked
    )
    for template in environment.list_templates(extensions=["jinja"]):
        path = folder / template.removesuffix(".jinja").replace("package/", f"{package}/")
        path.parent.mkdir(parents=True, exist_ok=True)
        values = {"name": name, "package": package, "version": __version__}
        path.write_text(environment.get_template(template).render(values), encoding="utf-8")
