"""What `translate` writes beside its own file: what other programs read, and a page for people."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from paramtrans.cli.flags import FilePath
from paramtrans.errors import ConfigError, ParamtransError

if TYPE_CHECKING:
    from paramtrans.networks.losses import Losses

REPORT = click.option("--report", metavar="FILE.html", type=FilePath(), help="Also a page to read, complete in itself.")
OPTIONS = (
    click.option("--stock", metavar="FOLDER", type=FilePath(), help="Also as its own library writes it."),
    REPORT,
    click.option("--onnx", metavar="FILE", type=FilePath(), help="Also as ONNX, checked against onnxruntime."),
    click.option("--export", metavar="FILE.pt2", type=FilePath(), help="Also as torch.export writes it."),
    click.option("--gguf", metavar="FILE", type=FilePath(), help="Also as GGUF, by llama.cpp's own converter."),
)
ENDINGS = {"report": ".html", "onnx": ".onnx", "export": ".pt2", "gguf": ".gguf"}


def export_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """A command with all these options; `Exports.taken` takes them from its arguments."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


@dataclass(frozen=True)
class Translated:
    """What came of a translation, for those forms that say more than the network."""

    network: Any
    """The untouched one."""
    small: Any
    batches: list[Any]
    losses: Losses
    architecture: str
    translators: list[str]
    facts: dict[str, str]
    """How it was made, for the page: names and values."""


@dataclass(frozen=True)
class Exports:
    """The further forms that are wanted."""

    stock: Path | None = None
    report: Path | None = None
    onnx: Path | None = None
    export: Path | None = None
    gguf: Path | None = None

    @classmethod
    def taken(cls, arguments: dict[str, Any]) -> Exports:
        """Those that the arguments of a command name, which are taken out of these."""
        return cls(*(arguments.pop(name) for name in ("stock", *ENDINGS)))

    def check(
        self,
        architecture: str,
        output: Path,
        captured: bool,
        data: Path | None,
        read_files: Sequence[Path],
        force: bool,
    ) -> None:
        """Check, before any work is done, that all of them can be written.

        Args:
            architecture: What makes the untranslated network.
            output: Where the network goes.
            captured: Whether the network is written as a program.
            data: Calibration inputs, which all but the page need.
            read_files: Files that the command reads.
            force: Write even over these.

        Raises:
            ConfigError: a path has the wrong ending, there are no inputs, or no converter.
            StoreError: a file cannot be written, or should not be.
        """
        from paramtrans.storage import outputs

        for name, ending in ENDINGS.items():
            path: Path | None = getattr(self, name)
            if path is None:
                continue
            if path.suffix != ending:
                raise ConfigError([f"--{name} {path}: must end in {ending}"])
            if data is None and name != "report":
                raise ConfigError([f"--{name}: takes --calibrate DATA, to follow the network with"])
            outputs.check(path, read_files, force)
        if self.stock is not None:
            outputs.check_folder(self.stock, read_files)
            for name, path in {"-o": output, **{f"--{name}": getattr(self, name) for name in ENDINGS}}.items():
                if path is not None and path.resolve().is_relative_to(self.stock.resolve()):
                    raise ConfigError([f"{name} {path}: lies in the folder of --stock, which has to be new"])
            if data is None:
                raise ConfigError(["--stock: takes --calibrate DATA, to hold the library's own network to this one"])
        if captured and (self.stock or self.export or self.gguf):
            raise ConfigError(
                ["--captured: writes -o as --export does, and has no form for --stock or --gguf; leave these out"]
            )
        if self.stock is not None:
            from paramtrans.networks.results.stock import check_source

            check_source(architecture)
        if self.gguf is not None:
            from paramtrans.networks.results.gguf import converter

            converter(architecture)

    def write(self, translated: Translated, output: Path, captured: bool) -> None:
        """Write all of them; one that cannot be had keeps none of the others back.

        Args:
            translated: What came of the translation.
            output: Where the network went, or goes if it is captured.
            captured: Whether it is written as a program.

        Raises:
            ParamtransError: forms cannot be had; the message says why each of them cannot.
        """
        written: list[Path] = [] if captured else [output]
        errors: dict[Path, ParamtransError] = {}
        wanted = replace(self, export=output) if captured else self
        for path, write in wanted._forms(translated):
            try:
                write()
                written.append(path)
            except ParamtransError as error:
                errors[path] = error
        if errors and written:
            done, missing = (", ".join(map(str, paths)) for paths in (written, errors))
            click.echo(f"{done} {'are' if len(written) > 1 else 'is'} written; not written: {missing}", err=True)
        if len(errors) == 1:
            raise next(iter(errors.values()))
        if errors:
            raise ParamtransError("\n".join(f"{path}: {error}" for path, error in errors.items()))

    def _forms(self, translated: Translated) -> Iterator[tuple[Path, Callable[[], None]]]:
        """Where each goes, and what writes it; the page first, which takes no other program."""
        from paramtrans.networks.results import exporting
        from paramtrans.networks.results.gguf import save_gguf
        from paramtrans.networks.results.stock import save_stock

        small, architecture, batch = translated.small, translated.architecture, next(iter(translated.batches), None)
        if self.report is not None:
            yield self.report, partial(_write, self.report, partial(_page, translated))
        if batch is None:  # `check` has seen to it that nothing else is wanted
            return
        if self.onnx is not None:
            yield self.onnx, partial(_write, self.onnx, partial(exporting.onnx_bytes, small, batch))
        if self.export is not None:
            yield self.export, partial(_write, self.export, partial(exporting.exported_bytes, small, batch))
        if self.stock is not None:
            losses, translators = translated.losses, translated.translators
            yield self.stock, partial(save_stock, small, architecture, self.stock, batch, losses, translators)
        if self.gguf is not None:
            yield self.gguf, partial(save_gguf, small, architecture, self.gguf, batch)


def _write(path: Path, content: Callable[[], bytes]) -> None:
    """Write what a function gives."""
    from paramtrans.storage import files

    files.write_bytes(path, content())


def check_output(output: Path, architecture: str, captured: bool, read_files: list[Path], force: bool) -> None:
    """Check, before any work is done, that the translated network can be written.

    Args:
        output: Where it goes.
        architecture: What makes the untranslated network.
        captured: Whether it is written as a program.
        read_files: Files that the command reads.
        force: Write even over these.

    Raises:
        ConfigError: the path has the wrong ending.
        StoreError: the file cannot be written, or should not be.
    """
    from paramtrans.networks.loading.architectures import factory_file
    from paramtrans.storage import outputs, sealed_params

    ending = ".pt2" if captured else ".safetensors"
    if output.suffix != ending:
        raise ConfigError(
            [f"-o {output}: must end in {ending}{', as --captured writes a program' if captured else ''}"]
        )
    for path in (output,) if captured else (output, sealed_params.record_path(output)):
        outputs.check(path, [*read_files, *factory_file(architecture)], force)


def _page(translated: Translated) -> bytes:
    """The page of a translation."""
    from paramtrans.networks.loading import architectures
    from paramtrans.networks.results import translation_page
    from paramtrans.networks.results.described import describe_blocks
    from paramtrans.networks.results.samples import samples
    from paramtrans.plugins.manager import components

    registry = components()
    is_installed = architectures.is_installed(translated.architecture, registry)
    source, name, _ = architectures.installed(translated.architecture, registry) if is_installed else (None, "", {})
    network, small, losses = translated.network, translated.small, translated.losses
    shown = samples(
        network,
        small,
        translated.batches,
        losses.predicts,
        lambda tokens: source.text(name, tokens) if source else None,
    )
    title = source.origin(network, name).model if source else type(network).__name__
    text = translation_page.page(title, describe_blocks(small), losses, shown, translated.facts)
    return text.encode("utf-8", errors="replace")
