"""`paramtrans compare`: finished runs side by side."""

from __future__ import annotations

from pathlib import Path

import click

from paramtrans.cli import answer
from paramtrans.cli.flags import FilePath, force_flag, json_flag, quiet_flag
from paramtrans.cli.show import show


@click.command()
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=FilePath(file_okay=False))
@click.option("--html", type=FilePath(), help="Also write a page to look at.")
@force_flag
@json_flag
@quiet_flag
def compare(runs: tuple[Path, ...], html: Path | None, force: bool, as_json: bool, quiet: bool) -> None:
    """Put finished runs side by side: results, and what differs in configs and versions. RUN is a run's folder."""
    from paramtrans.runs import compare
    from paramtrans.storage import outputs
    from paramtrans.utils.boundary import well_formed

    if html is not None:
        outputs.check(html, runs, force)
    read_runs = compare.read(runs)
    with well_formed(Path(", ".join(map(str, runs))), "give folders of finished runs"):
        comparison = compare.compare(read_runs)
        if html is not None:
            compare.write(html, comparison)
        shown = compare.tables(comparison)
    if as_json:
        answer.tell(comparison)
    else:
        show(shown)
        if html is not None:
            click.echo(f"page: {html}")
