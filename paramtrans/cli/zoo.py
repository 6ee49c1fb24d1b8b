"""`paramtrans zoo`: what is in a zoo, and zoos that leave and enter."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from paramtrans.cli import answer
from paramtrans.cli.completion import settings as completed
from paramtrans.cli.flags import FilePath, force_flag, json_flag, plugin_files, quiet_flag
from paramtrans.cli.zoo_summary import described, line
from paramtrans.errors import ConfigError
from paramtrans.utils.counts import counted

if TYPE_CHECKING:
    from paramtrans.zoo.exchange import Contents
    from paramtrans.zoo.zoo import Zoo

cache_option = click.option("--cache", metavar="FOLDER", help="The cache; by default as for `paramtrans run`.")
set_option = click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="A.B=VALUE",
    shell_complete=completed,
    help="Override one value of the config.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def zoo() -> None:
    """Look into zoos, and take them out and in as plain safetensors files with an index.

    ZOO is a folder, the name of one in the cache (its first letters will do), or a config, whose zoo is meant.
    """


@zoo.command()
@click.argument("name", metavar="[ZOO]", required=False)
@click.option("--verify", is_flag=True, help="Read every file, and check it.")
@set_option
@plugin_files
@cache_option
@json_flag
@quiet_flag
def inspect(
    name: str | None, verify: bool, settings: tuple[str, ...], cache: str | None, as_json: bool, quiet: bool
) -> None:
    """Say what is in a zoo: task, blocks, hosts, tensors. Without ZOO, list those in the cache."""
    from paramtrans.zoo import exchange

    if not name:
        _no_settings(settings)
    zoos = [_contents(name, settings, cache)] if name else _cached(cache)
    if verify:
        with _stage(quiet, "checking", sum(len(contents.files) for contents in zoos)) as advance:
            for contents in zoos:
                for file in contents.files:
                    contents.load(file)
                    advance(1)
    summaries = [exchange.summary(contents) for contents in zoos]
    if as_json:
        answer.tell(summaries[0] if name else summaries)
    elif name:
        click.echo(described(summaries[0]) + ("\nevery file is whole" if verify else ""))
    else:
        click.echo("\n".join(map(line, summaries)) or "the cache holds no zoo")


@zoo.command()
@click.argument("name", metavar="ZOO")
@click.argument("out", type=FilePath())
@set_option
@plugin_files
@cache_option
@json_flag
@quiet_flag
def export(name: str, out: Path, settings: tuple[str, ...], cache: str | None, as_json: bool, quiet: bool) -> None:
    """Copy a zoo to the new folder OUT: safetensors files, and index.json with recipes, seeds and checksums."""
    from paramtrans.zoo import exchange

    contents = _contents(name, settings, cache)
    with _stage(quiet, "export", len(contents.files)) as advance:
        exchange.export(contents, out, advance)
    _print(
        {"folder": str(out), "files": len(contents.files)}, f"{counted(len(contents.files), 'file')} in {out}", as_json
    )


@zoo.command()
@click.argument("name", metavar="ZOO|HOSTS.safetensors")
@click.argument("out", type=FilePath())
@click.option("--number", type=click.IntRange(min=0), default=0, show_default=True, help="Which one, counted from 0.")
@click.option(
    "--role",
    type=click.Choice(["train", "select", "report"]),
    default="report",
    show_default=True,
    help="What the host is for in its zoo.",
)
@set_option
@force_flag
@plugin_files
@cache_option
@json_flag
def take(
    name: str,
    out: Path,
    number: int,
    role: str,
    settings: tuple[str, ...],
    force: bool,
    cache: str | None,
    as_json: bool,
) -> None:
    """Write one host, of a zoo or of a file of hosts, to OUT as an ordinary network: a plain state_dict."""
    from safetensors.torch import save

    from paramtrans.errors import StoreError
    from paramtrans.networks.loading import host_network
    from paramtrans.plugins.manager import components
    from paramtrans.storage import files, outputs
    from paramtrans.zoo import exchange
    from paramtrans.zoo.host_file import HostFile

    if out.suffix != ".safetensors":
        raise StoreError(f"{out}: must end in .safetensors")
    architecture = None
    if name.endswith(".safetensors"):
        _no_settings(settings)
        state = HostFile(Path(name)).network(number)
    else:
        contents = _contents(name, settings, cache)
        state = exchange.take(contents, role, number)
        architecture = host_network.architecture(contents.recipe["task"], contents.recipe["source"], components())
    outputs.check(out, [Path(name)] if name.endswith(".safetensors") else [contents.folder], force)
    files.write_bytes(out, save(state))
    document = {"output": str(out), "architecture": architecture}
    architecture_flag = (
        f"--arch '{architecture}'" if architecture else "--arch task:TASK:BLOCK, the task and block of these hosts"
    )
    _print(document, f"{out}: host {number} as a network, for {architecture_flag}", as_json)


@zoo.command("import")
@click.argument("folder", type=FilePath())
@click.argument("config", required=False, type=FilePath())
@click.option("--names", type=FilePath(), help="JSON: for each part, our name of a tensor → the file's.")
@set_option
@plugin_files
@cache_option
@json_flag
@quiet_flag
def enter(
    folder: Path,
    config: Path | None,
    names: Path | None,
    settings: tuple[str, ...],
    cache: str | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Put a zoo into the cache, from an exported folder or from one in the layout of the paper's published zoos.

    The latter (inputs/, labels/, backup_begin/ and backup_last/ with a .pth file for each model) needs a CONFIG with
    the same task and blocks, whose zoo.origin names it: --set zoo.origin=published.
    """
    from paramtrans.storage.cache import cache_dir
    from paramtrans.zoo import exchange, paper_format

    if paper_format.is_published(folder):
        if config is None:
            raise click.UsageError("a published zoo needs a CONFIG that says which task and blocks it is of")
        zoo_in_cache = _zoo_of(config, settings, cache)
        count = 2 * sum(
            len(zoo_in_cache.host_shards(role)) + len(zoo_in_cache.target_shards(role))
            for role in ("train", "select", "report")
        )
        with _stage(quiet, "import", count) as advance:
            host_counts = paper_format.enter(zoo_in_cache, folder, _names(names), advance)
        entered = ", ".join(f"{number} {role}" for role, number in host_counts.items())
        _print(
            {"folder": str(zoo_in_cache.dir), "hosts": host_counts}, f"{entered}: now in {zoo_in_cache.dir}", as_json
        )
        return
    contents = exchange.contents(folder)
    with _stage(quiet, "import", 2 * len(contents.files)) as advance:
        new_folder = exchange.enter(contents, cache_dir(cache), advance)
    _print(
        {"folder": str(new_folder), "files": len(contents.files)},
        f"{counted(len(contents.files), 'file')}: now in {new_folder}",
        as_json,
    )


def _contents(name: str, settings: tuple[str, ...], cache: str | None) -> Contents:
    """The zoo that a folder, a config or the first letters of a name in the cache stand for."""
    from paramtrans.errors import StoreError
    from paramtrans.zoo import exchange

    path = Path(name)
    if path.suffix == ".toml" and not path.is_dir():
        return exchange.contents(_zoo_of(path, settings, cache).dir)
    _no_settings(settings)
    if path.is_dir():
        return exchange.contents(path)
    folders = _folders(cache)
    matching = [folder for folder in folders if folder.name.startswith(name)]
    if len(matching) != 1:
        names = ", ".join(folder.name for folder in folders) or "none"
        raise StoreError(
            f'zoo "{name}": {len(matching)} in the cache begin so (there: {names}); name a folder or a config'
        )
    return exchange.contents(matching[0])


def _no_settings(settings: tuple[str, ...]) -> None:
    if settings:
        raise ConfigError([f"--set {settings[0]}: goes with a config; name one"])


def _cached(cache: str | None) -> list[Contents]:
    """Every zoo in the cache that can be read; the others are named."""
    from paramtrans.errors import StoreError
    from paramtrans.zoo import exchange

    zoos = []
    for folder in _folders(cache):
        try:
            zoos.append(exchange.contents(folder))
        except StoreError as error:
            click.echo(f"left out: {error}", err=True)
    return zoos


def _folders(cache: str | None) -> list[Path]:
    """The folders of the zoos in the cache."""
    from paramtrans.storage.cache import cache_dir

    return [path.parent for path in sorted((cache_dir(cache) / "zoos").glob("*/recipe.json"))]


def _zoo_of(path: Path, settings: tuple[str, ...], cache: str | None) -> Zoo:
    from paramtrans.builder import Builder
    from paramtrans.config import loading
    from paramtrans.plugins.manager import components
    from paramtrans.storage.cache import cache_dir
    from paramtrans.zoo.zoo import Zoo

    resolved = loading.load(path, components(), settings)
    return Zoo(Builder(resolved, components()), cache_dir(cache or resolved.run.cache))


def _names(path: Path | None) -> dict[str, dict[str, str]]:
    """The table of names, checked."""
    from pydantic import TypeAdapter, ValidationError

    from paramtrans.errors import StoreError
    from paramtrans.storage import json_files

    try:
        return TypeAdapter(dict[str, dict[str, str]]).validate_python(json_files.read_json(path) if path else {})
    except ValidationError as error:
        raise StoreError(f'{path}: expected {{"source": {{"our name": "its name"}}}}, for each part') from error


def _stage(quiet: bool, name: str, total: int) -> Any:
    """A stage whose value in `with` is the function that advances it."""
    from contextlib import contextmanager

    from rich.console import Console

    from paramtrans.utils.progress import ConsoleReporter, Reporter

    @contextmanager
    def advancing() -> Any:
        reporter = Reporter() if quiet else ConsoleReporter(Console(stderr=True))
        with reporter.stage(name, total) as stage:
            yield stage.advance

    return advancing()


def _print(document: dict[str, Any], sentence: str, as_json: bool) -> None:
    answer.tell(document) if as_json else click.echo(sentence)
