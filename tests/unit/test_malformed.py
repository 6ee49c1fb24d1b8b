"""Documents whose checksums are right and whose content is not: each reader refuses them in words, or never minds."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from paramtrans import load_translated, load_translator, translate
from paramtrans.api.records import History
from paramtrans.builder import Builder
from paramtrans.cli.main import main
from paramtrans.config import Config
from paramtrans.errors import Damaged, ParamtransError
from paramtrans.networks.files import save_translated
from paramtrans.plugins import components
from paramtrans.report import sweep
from paramtrans.runs import folder as run_folder
from paramtrans.storage import cache, files, json_files, sealed_params
from paramtrans.training.steps import take_up
from paramtrans.translators import card
from paramtrans.translators.saving import find_translator
from paramtrans.zoo import Zoo

GOLDEN = Path(__file__).parents[1] / "golden"
ZOO = next((GOLDEN / "zoos").iterdir()).name
TARGETS = next((GOLDEN / "zoos" / ZOO / "targets").iterdir()).name
GONE = object()
DEEP: Any = []
for _ in range(300):
    DEEP = [DEEP]
WRONG = (GONE, None, True, -1, 1.5, -1e308, 10**30, 10**9, "", "\x1b[31m\n../x", [], {}, [None], [[]], DEEP)
"""What stands in the place of one value after the other."""
CASES = 30
"""Of each document, drawn at random with the same seed each time."""


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of all that is in a document; of lists, the first item."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
    for key, below in items:
        yield from places(below, (*path, key))


def put(document: Any, path: tuple[Any, ...], wrong: Any) -> Any:
    """A document with something else in a place."""
    if not path:
        return {} if wrong is GONE else wrong
    key, *rest = path
    copy = dict(document) if isinstance(document, dict) else list(document)
    if rest or wrong is not GONE:
        copy[key] = put(copy[key], tuple(rest), wrong)
    else:
        del copy[key]
    return copy


def wrong_documents(path: Path) -> Iterator[tuple[str, Any]]:
    """Of a document on disk, those with one wrong value, each with words for it."""
    document = json.loads(path.read_bytes())
    document.pop(json_files.SEAL, None)
    cases = [(place, wrong) for place in places(document) for wrong in WRONG]
    for place, wrong in random.Random(path.name).sample(cases, min(CASES, len(cases))):
        yield f"{'.'.join(map(str, place))} is {str(wrong)[:40]!r}", put(document, place, wrong)


def write(path: Path, document: Any) -> None:
    """Write a document with a checksum that fits, as no writer of ours would."""
    sealed = {**document, json_files.SEAL: json_files.digest(document)} if isinstance(document, dict) else document
    path.write_text(json.dumps(sealed))


def shell(*arguments: object) -> Callable[[], None]:
    """A command, which is held to what commands promise of refusals."""

    def do() -> None:
        if main([str(argument) for argument in arguments]) not in (0, 2):
            pytest.fail("neither done nor refused")

    return do


Reader = Callable[[], object]


def of_run(tmp_path: Path) -> list[Reader]:
    return [shell("diagnose", tmp_path / "run"), shell("compare", tmp_path / "run")]


def of_evaluation(tmp_path: Path) -> list[Reader]:
    return [*of_run(tmp_path), shell("compare", tmp_path / "run", "--html", tmp_path / "page.html")]


def of_zoo(tmp_path: Path) -> list[Reader]:
    zoo = tmp_path / "zoos" / ZOO
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
    return [shell("zoo", "inspect", zoo), shell("zoo", "export", zoo, tmp_path / "out", "--quiet")]


def of_exported(tmp_path: Path) -> list[Reader]:
    zoo, into = tmp_path / "exported", ("--cache", tmp_path / "into", "--quiet")
    taken = shell("zoo", "take", zoo, tmp_path / "host.safetensors", "--force")
    return [shell("zoo", "inspect", zoo), shell("zoo", "import", zoo, *into), taken]


def of_translator(tmp_path: Path) -> list[Reader]:
    return [lambda: load_translator(tmp_path / "run")]


def of_card(tmp_path: Path) -> list[Reader]:
    return [lambda: card.read(tmp_path / "pretrained")]


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 6)).eval()


def of_network(tmp_path: Path) -> list[Reader]:
    path = tmp_path / "small.safetensors"
    return [lambda: load_translated(path, network()), shell("inspect", path, "--arch", "hf:none")]


DOCUMENTS = {
    "run/run.json": of_run,
    "run/evaluation.json": of_evaluation,
    "run/translator/translator.json": of_translator,
    "run/translator/translator.safetensors.json": of_translator,
    "pretrained/card.json": of_card,
    f"zoos/{ZOO}/recipe.json": of_zoo,
    f"zoos/{ZOO}/hosts/report-0000000-0000002.safetensors.json": of_zoo,
    f"zoos/{ZOO}/targets/{TARGETS}/recipe.json": of_zoo,
    f"zoos/{ZOO}/targets/{TARGETS}/report-0000000-0000002.safetensors.json": of_zoo,
    "exported/index.json": of_exported,
    "small.safetensors.json": of_network,
}
"""Where each stands, and what reads it."""


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A folder with all of them."""
    shutil.copytree(GOLDEN / "run", tmp_path / "run")
    shutil.copytree(GOLDEN / "zoos", tmp_path / "zoos")
    shutil.copytree(find_translator("mnist_conv_to_conv", components()), tmp_path / "pretrained")
    shell("zoo", "export", tmp_path / "zoos" / ZOO, tmp_path / "exported", "--quiet")()
    save_translated(translate(network(), "prune", calibrate=torch.randn(8, 6)), tmp_path / "small.safetensors")
    return tmp_path


@pytest.mark.thorough
@pytest.mark.parametrize("name", DOCUMENTS)
def test_wrong_content_under_a_fitting_checksum_is_refused_in_words(
    written: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path, refused = written / name, 0
    run_record = json.loads((written / "run" / "run.json").read_bytes())
    for what, document in wrong_documents(path):
        write(path, document)
        if name == "run/evaluation.json":
            run_record["files"] = {"evaluation.json": files.checksum(path)}
            write(written / "run" / "run.json", run_record)
        for reader in DOCUMENTS[name](written):
            capfd.readouterr()
            try:
                reader()
                said = capfd.readouterr().err
            except ParamtransError as error:
                said = str(error)
            assert said.count("\n") <= 3 and "Traceback" not in said and "\x1b" not in said, f"{what}: {said}"
            refused += bool(said)
    assert refused > CASES // 4


def test_a_shard_of_wrong_content_is_trained_again(tiny_config: Callable[..., Config]) -> None:
    config = tiny_config("zoo.train=3", "zoo.select=1", "zoo.report=2")
    folder = cache.cache_dir(config.run.cache)
    shutil.copytree(GOLDEN / "zoos", folder / "zoos")
    builder, path = (
        Builder(config, components()),
        sealed_params.record_path(folder / "zoos" / ZOO / "hosts" / "report-0000000-0000002.safetensors"),
    )
    whole = {key: value for key, value in json_files.read_json(path).items() if key != json_files.SEAL}
    for key, wrong in {"seconds": "x", "made_of": {"computes": {"source": 3}}, "seeds": None, "start": DEEP}.items():
        write(path, {**whole, key: wrong})
        zoo = Zoo(builder, folder)
        assert [job.role for job in zoo.missing(1)] == ["report"], key
    write(path, whole)
    zoo = Zoo(builder, folder)
    assert zoo.missing(1) == [] and zoo.seconds() > 0


@pytest.mark.parametrize("line", ["3", "[]", '{"loss": "x"}', '{"loss": []}', '{"loss": NaN}', "{", "[" * 999])
def test_lines_of_metrics_that_hold_something_else(tmp_path: Path, line: str) -> None:
    shutil.copytree(GOLDEN / "run", tmp_path / "run")
    (tmp_path / "run" / "metrics.jsonl").write_text('{"epoch": 1, "loss": 0.5}\n' + line)
    for read in (sweep.history, run_folder.history):
        with pytest.raises(Damaged, match=r"metrics\.jsonl: a line"):
            read(tmp_path / "run")


EPOCH = {"loss": 0.5, "lr": 0.1}


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        {"epochs": "x"},
        {"epochs": [3]},
        {"epochs": [{"lr": 0.1}]},
        {"epochs": [EPOCH] * 4},
        {"epochs": []},
        {"epochs": [EPOCH], "best_epoch": 2},
        {"epochs": [EPOCH], "best_accuracy": "x"},
        {"epochs": [EPOCH], "seconds": [0]},
    ],
)
def test_a_checkpoint_tells_of_epochs_that_can_have_been(wrong: Any) -> None:
    assert History.read({"epochs": [EPOCH], "best_epoch": 1}, 3).epochs == [EPOCH]
    with pytest.raises(ValueError):
        History.read(wrong, 3)


@pytest.mark.parametrize(
    "wrong",
    [
        {"0.exp_avg": torch.zeros(3)},
        {"9.exp_avg": torch.zeros(2)},
        {"x.exp_avg": torch.zeros(2)},
        {"0.other": torch.zeros(2)},
        {"0.exp_avg_sq": None},
    ],
)
def test_an_optimiser_takes_the_state_of_its_own_parameters_alone(wrong: dict[str, Any]) -> None:
    fresh = [torch.optim.Adam([torch.zeros(2, requires_grad=True)]) for _ in range(2)]
    good = {"0.step": torch.tensor(3.0), "0.exp_avg": torch.ones(2), "0.exp_avg_sq": torch.ones(2)}
    take_up(fresh[0], good)
    assert int(fresh[0].state_dict()["state"][0]["step"]) == 3
    with pytest.raises((ValueError, LookupError)):
        take_up(fresh[1], {name: value for name, value in {**good, **wrong}.items() if value is not None})


def test_a_mean_that_was_not_finite_is_compared_and_shown_as_none(
    written: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written / "run" / "evaluation.json"
    document = json.loads(path.read_bytes())
    path.write_text(json.dumps(put(document, ("methods", "translated", "mean"), None)))
    assert main(["compare", str(written / "run"), "--html", str(written / "page.html")]) == 0
    assert main(["compare", str(written / "run"), "--json"]) == 0
    lost = {"difference": {"mean": None, "ci95": [None, None]}}
    row = {"name": "a", "dir": "a", "values": {}, "methods": {"translated": {"mean": None, "ci95": [None, None]}}}
    row["methods"]["random_init"] = lost  # type: ignore[index]
    for figure in ("gain", "accuracies"):
        sweep.write(written, "x", [row], ["translated", "gain"], figure)
    assert sweep.cells([row], ["translated", "gain"]) == ([], [[]])
