"""The drawings of docs/architecture.md. The packages and their order are read from pyproject.toml."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path

from drawing import arrow, box, figure, lines, path, text

PROJECT = Path(__file__).parents[1] / "pyproject.toml"
WHAT = {
    "cli": "the commands, a file each",
    "testing": "checks of what each kind of plugin promises: `paramtrans check`",
    "runs": "a run or a sweep, stage by stage",
    "networks": "whole networks: find units, translate",
    "hub": "translators on model hubs",
    "training": "step 3: trains a translator",
    "zoo": "steps 1 and 2: trains networks to learn from",
    "evaluation": "metrics, costs, and the comparison with other methods",
    "builder": "builds the components that a config names",
    "translators": "what translators are built on; saving them, pretrained ones",
    "report": "pages and figures",
    "config": "TOML files to validated records",
    "plugins": "hooks; finds plugins and registers their components",
    "backends": "many models at once: CPU, GPU, vmap",
    "ops": "mathematics on parameters and features",
    "storage": "files, shards, checkpoints, the cache",
    "api": "what a plugin implements: base classes and records",
    "utils": "progress, memory, random seeds",
    "errors": "errors that say what to do",
}
RUN = (
    ("cli", "reads the command: a config,\nand single values to change"),
    ("plugins", "finds plugins, and registers\nthe components they offer"),
    ("config", "checks every table of the file\nagainst the component it names"),
    ("runs", "goes through the stages; goes on\nwhere an earlier run stopped"),
    ("builder", "builds task, blocks, translator\nand objectives, each once"),
    ("zoo", "steps 1 and 2: trains networks\nand smaller blocks in them"),
    ("training", "step 3: trains the translator\non these"),
    ("evaluation", "compares it with other methods\non networks it has never seen"),
    ("report", "writes the page of the run"),
)
TRANSLATION = (
    ("cli", "reads parameters and inputs;\nPython calls translate itself"),
    ("networks", "copies the network, and looks\nwhether its inputs repeat"),
    ("networks.graph", "finds units in the graph,\nand proves each group"),
    ("networks", "chooses how many units of\neach group stay"),
    ("plugins", "names the translator, which\nchooses the units that stay"),
    ("ops", "solves the layers that read the\nunits, by least squares"),
    ("networks", "measures the error of each\ngroup, and of the outputs"),
    ("storage", "writes parameters, and a record\nof how to build the network"),
)
PLUGIN = (
    ("your distribution", "announces a module, by an\nentry point of its metadata"),
    ("plugins", "loads the module; one that fails\nis a warning, not a crash"),
    ("plugins", "asks its hooks for components:\nname, summary, place of the class"),
    ("config", "reads a config that names one,\nand checks its options"),
    ("builder", "imports the class, and builds it\nwith these options"),
    ("api", "has its base class, by which\nevery stage calls it"),
)


def layers() -> list[list[str]]:
    """The packages of the core by layer, the highest first: each imports only from layers below its own."""
    contracts = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
    [names] = [contract["layers"] for contract in contracts if contract.get("containers") == ["paramtrans"]]
    return [[name.strip() for name in layer.split("|")] for layer in names]


def packages() -> str:
    """All packages of the core, in their layers, and the plugins beside them."""
    left, wide, high, apart = 44, 800, 44, 8
    parts, y = [text(left, 26, "Each package imports only from the packages below it.", "small quiet")], 40.0
    top = y
    for layer in layers():
        width = (wide - 12 * (len(layer) - 1)) / len(layer)
        for number, name in enumerate(layer):
            x = left + number * (width + 12)
            parts += [box(x, y, width, high), text(x + 12, y + 18, name, "code")]
            parts.append(text(x + 12, y + 35, WHAT[name].replace("`", ""), "small quiet"))
        y += high + apart
    parts += arrow(24, top, 24, y - apart)
    parts += [box(left, y + 10, wide, high, "box dashed"), text(left + 12, y + 28, "plugins, ours and yours", "strong")]
    said = "import api, and what else they need; the core finds them by entry points and never imports one by its name"
    parts.append(text(left + 12, y + 45, said, "small quiet"))
    return figure(left + wide + 20, int(y) + 72, "The packages of paramtrans in their layers", parts)


def flow(title: str, steps: Sequence[tuple[str, str]], across: int = 3) -> str:
    """Numbered boxes in rows, an arrow to each next one; a name without a space is a package, which must be there."""
    rooms = {name for layer in layers() for name in layer}
    if missing := {name.partition(".")[0] for name, _ in steps if " " not in name} - rooms:
        raise ValueError(f"no such packages: {sorted(missing)}")
    wide, high, beside, below, edge = 246, 70, 36, 34, 20
    parts = []
    for number, (name, words) in enumerate(steps):
        row, column = divmod(number, across)
        x, y = edge + column * (wide + beside), edge + row * (high + below)
        parts += [box(x, y, wide, high), text(x + wide - 10, y + 20, f"{number + 1}", "end small quiet")]
        parts.append(text(x + 12, y + 21, name, "strong" if " " in name else "code"))
        parts += lines(x + 12, y + 41, words, "small")
        if number + 1 == len(steps):
            continue
        if column + 1 < across:
            parts += arrow(x + wide, y + high / 2, x + wide + beside, y + high / 2)
        else:
            middle, first = y + high + below / 2, edge + wide / 2
            parts.append(path([(x + wide / 2, y + high), (x + wide / 2, middle), (first, middle)], "arrow"))
            parts += arrow(first, middle, first, y + high + below)
    rows = -(-len(steps) // across)
    width = 2 * edge + across * wide + (across - 1) * beside
    return figure(width, 2 * edge + rows * high + (rows - 1) * below, title, parts)


def run() -> str:
    return flow("The way of a run through the packages", RUN)


def translation() -> str:
    return flow("The way of a translation through the packages", TRANSLATION)


def plugin() -> str:
    return flow("The way of a plugin through the packages", PLUGIN)
