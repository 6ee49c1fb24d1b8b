"""The report's page, its figures, and the terminal's table, from made-up results."""

import copy
import io
import math
import re
import subprocess
import sys
import tomllib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import matplotlib
import pytest
import torch
from rich.console import Console

from paramtrans.api.records import Evaluation, MeasuredBy, RunRecord
from paramtrans.config.toml_writer import toml
from paramtrans.ops.statistics import gap_closed
from paramtrans.report import figures, findings, html

NASTY = "</text><script>alert('$x_1$')</script>\x00 & \"quotes\""
VOID = {"meta", "link", "img", "br", "hr", "input"}


def method(values: list[float]) -> dict[str, Any]:
    mean = sum(values) / len(values)
    return {"mean": mean, "ci95": [mean - 1.1, mean + 1.1], "min": min(values), "max": max(values), "n": len(values)}


@pytest.fixture
def result() -> dict[str, Any]:
    hosts = {
        "odd_rival": [20.0, 22.0],
        "random_init": [9.0, 11.0],
        "zero_block": [60.0, 70.0],
        "translated": [80.0, 90.0],
        "trained_target": [93.0, 97.0],
        "source": [96.0, 97.0],
    }
    return {
        "format": 1,
        "methods": {name: method(values) for name, values in hosts.items()},
        "hosts": {"seeds": [7, 3, 4, 5], "accuracies": hosts},
        "translator": {"name": "mixer", "parameters": 1234567},
        "zoo": {"train": 1000, "select": 8, "report": 2},
        "blocks": {
            "source": {"parameters": 295424, "flops": 57802752, "latency_ms": 12.3456},
            "target": {"parameters": 16768, "flops": 3211264, "latency_ms": 2.0},
        },
        "break_even": {
            "models": 2130,
            "zoo_seconds": 7400.0,
            "training_seconds": 1200.0,
            "translation_seconds": 0.021,
            "step2_seconds": 40.0,
        },
        "training": {"epochs": 4, "best_epoch": 2, "best_select": 84.71},
    }


@pytest.fixture
def run() -> dict[str, Any]:
    return {
        "format": 2,
        "status": "finished",
        "name": "small run",
        "config": {
            "task": {"name": "mnist"},
            "source": {"name": "basic_block"},
            "target": {"name": "conv"},
            "run": {"dir": None},
        },
        "versions": {"torch": "2.9.1"},
        "plugins": ["paramtrans-blocks 0.1.0"],
        "seconds": {"zoo_train": 90.0, "training": 9.996, "costs": 0.014},
        "started": "2025-11-23T14:07:12+00:00",
    }


@pytest.fixture
def history() -> list[dict[str, Any]]:
    return [
        {"epoch": e, "loss": 2.0 / e, "lr": 0.1, **({"select": 80.0 + e} if e % 2 == 0 else {})} for e in range(1, 5)
    ]


@pytest.fixture
def maps() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.rand(3, 6, 6, generator=generator) for name in ("translated", "input", "source")}


class Reader(HTMLParser):
    """Tags, attributes and text of a page; fails on tags that do not nest."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(page)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, key, value or "") for key, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def values(self, key: str) -> list[str]:
        return [value for _, name, value in self.attributes if name == key]


def evaluation_of(result: dict[str, Any]) -> Evaluation:
    """What was measured, as the code hands it on."""
    return Evaluation.model_validate(result)


def page_of(folder: Path, result: dict[str, Any], run: dict[str, Any], *parts: Any) -> tuple[str, Reader]:
    path = html.write(folder, evaluation_of(result), RunRecord.model_validate(run), *parts)
    assert path == folder / "report.html"
    page = path.read_bytes().decode()
    return page, Reader(page)


def printed(result: dict[str, Any]) -> str:
    console = Console(width=100, file=io.StringIO(), record=True)
    console.print(findings.table(evaluation_of(result)))
    return console.export_text()


def words(drawn: Any) -> list[str]:
    return [text.get_text() for text in drawn.findobj(matplotlib.text.Text)]


def test_page_is_complete_and_loads_nothing(tmp_path, result, run, history, maps):
    page, read = page_of(tmp_path, result, run, history, maps)
    assert read.tags.count("svg") == read.tags.count("figure") == 4
    assert not {"script", "link", "iframe", "img", "object", "metadata"} & set(read.tags)
    assert read.tags.count("style") == 1
    assert "http" not in page.replace("http-equiv", "")
    links = read.values("href") + read.values("src")
    assert links
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in links)
    for text in (
        "83.9–86.1",
        "1,234,567",
        "57,802,752",
        "17.6×",
        "12.346",
        "are in evaluation.json",
        "84.7%",
        "23 November 2025, 14:07 UTC",
    ):
        assert text in read.text, text


def test_page_is_accessible(tmp_path, result, run, history, maps):
    _, read = page_of(tmp_path, result, run, history, maps)
    ids = read.values("id")
    assert len(ids) == len(set(ids))
    assert set(read.values("aria-labelledby")) <= set(ids)
    inside = [link[1:] for link in read.values("href") if link.startswith("#")]
    inside += re.findall(r"url\(#([^)]+)\)", " ".join(read.values("clip-path")))
    assert inside
    assert set(inside) <= set(ids)
    assert read.tags.count("figcaption") == read.tags.count("svg") == read.values("role").count("img")
    assert any("translated 85.0" in said for said in read.values("aria-label"))
    assert "source block (basic_block, 295,424 parameters) by a target block (conv, 16,768 parameters)" in read.text
    assert "zero blocka target block of zeros" in " ".join(read.text.split())
    assert read.tags.count("th") == len(read.values("scope"))


def test_same_input_gives_same_bytes_whatever_the_users_style(tmp_path, result, run, history, maps):
    first = html.write(tmp_path / "a", evaluation_of(result), RunRecord.model_validate(run), history, maps).read_bytes()
    with matplotlib.rc_context({"axes.linewidth": 9, "font.size": 30, "svg.fonttype": "path"}):
        second = html.write(
            tmp_path / "b", evaluation_of(result), RunRecord.model_validate(run), history, maps
        ).read_bytes()
        assert matplotlib.rcParams["font.size"] == 30
    assert first == second


def test_text_from_outside_stays_text(tmp_path, result, run, history, maps):
    result["methods"][NASTY] = method([1.0, 2.0])
    result["hosts"]["accuracies"][NASTY] = [1.0, 2.0]
    result["translator"]["name"] = NASTY
    maps[NASTY] = maps["input"]
    run |= {
        "name": NASTY,
        "config": {NASTY: {"a": f"{NASTY}\ud800"}, **{part: {"name": NASTY} for part in ("task", "source", "target")}},
        "versions": {NASTY: NASTY},
        "plugins": [NASTY],
        "started": NASTY,
    }
    run["seconds"] = {NASTY: 1.0}
    page, read = page_of(tmp_path, result, run, history, maps)
    assert "script" not in read.tags
    assert "<script" not in page
    assert read.text.count("alert('$x") >= 8
    assert "</text><script>" in printed(result)


def test_names_are_neither_markup_nor_mathematics(result):
    result["methods"] = {"[red]$x^$[/blue]": method([1.0])}
    assert "[red]$x^$[/blue]" in printed(result)
    assert "[red]$x^$[/blue]</text>" in figures.svg(figures.means(evaluation_of(result)), "name", "")


def test_page_without_training_history_or_maps(tmp_path, result, run):
    result["training"] = None
    _, read = page_of(tmp_path, result, run, [], {})
    assert read.tags.count("svg") == 2
    assert "none needed" in read.text


def test_page_with_little_to_show(tmp_path, result, run):
    summary = {"mean": 50.0, "ci95": [math.nan, None], "min": 50.0, "max": 50.0, "n": 1}
    result |= {"methods": {"zero_block": summary}, "hosts": {"seeds": [], "accuracies": {}}, "training": None}
    result["blocks"]["target"] = {"parameters": 0, "flops": 0, "latency_ms": math.nan}
    _, read = page_of(tmp_path, result, run | {"plugins": [], "seconds": {}}, [], {})
    assert "No translated block was evaluated." in read.text
    assert "nan" not in read.text.lower()
    assert "None" not in read.text


def test_headline(result):
    assert findings.headline(evaluation_of(result)) == [
        "Translated blocks reach 85.0% (95% interval 83.9–86.1) on 2 report hosts; "
        "the source network has 96.5%, the best rival (zero block) 65.0%.",
        "That closes 88.2% of the gap from random initialisation (10.0%) to the trained target (95.0%).",
    ]


def test_headline_says_when_a_rival_is_better(result):
    result["methods"]["odd_rival"]["mean"] = 85.0
    assert findings.headline(evaluation_of(result))[1] == "So that rival does at least as well."
    result["methods"]["odd_rival"]["mean"] = 84.9
    assert "rival does" not in " ".join(findings.headline(evaluation_of(result)))


@pytest.mark.parametrize("alone", ["translated", "zero_block"])
def test_headline_with_few_methods(result, alone):
    result["methods"] = {name: result["methods"][name] for name in {"translated", alone}}
    rival = "; the best rival (zero block) has 65.0%" if alone == "zero_block" else ""
    expected = f"Translated blocks reach 85.0% (95% interval 83.9–86.1) on 2 report hosts{rival}."
    assert findings.headline(evaluation_of(result)) == [expected]


@pytest.mark.parametrize(
    ("low", "middle", "high", "share"),
    [(10, 55, 100, 0.5), (10, 5, 60, -0.1), (50, 60, 50, None), (60, 60, 50, None), (math.nan, 60, 70, None)],
)
def test_gap_closed(low, middle, high, share):
    means = {"random_init": low, "translated": middle, "trained_target": high}
    closed = gap_closed(means, "translated")
    assert closed == (None if share is None else pytest.approx(share))


def test_worse_than_random_closes_none_of_the_gap(result):
    result["methods"]["translated"]["mean"] = 5.0
    assert findings.headline(evaluation_of(result))[-1].startswith("That closes none of the gap")


def test_break_even(result):
    costs = evaluation_of(result).break_even
    assert costs and html.break_even(costs) == (
        "By time alone, translating pays from 2,130 models on. The zoo (2 h 3 min) and the training (20 min 0 s) are "
        "paid for once; after that, for each model a translation takes 21 ms, step 2 takes 40 s."
    )
    assert "pays from the first model on" in html.break_even(costs.model_copy(update={"models": 1}))
    assert "never pays by time alone" in html.break_even(costs.model_copy(update={"models": None}))


def test_config_is_the_same_after_toml():
    config = {
        "name": 'say "hi"\n\x7fü\\',
        "task": {"name": "mnist", "root": "", "odd key.": {"": 1}},
        "objectives": [{"name": "mse", "weight": 1e-05, "deep": {"a": [1, 2]}}, {"name": "ce", "big": 1e16}],
        "list": [1, {"a": True}, [{"b": False}]],
        "empty": {},
        "none": [],
        "limit": math.inf,
    }
    assert tomllib.loads(toml({**copy.deepcopy(config), "unset": None})) == config


def test_toml_leaves_out_what_is_unset_wherever_it_stands() -> None:
    config = {"task": {"root": None, "size": 3}, "methods": [{"label": None}, None, {"label": "a", "then": (1, None)}]}
    written = tomllib.loads(toml(config))
    assert written == {"task": {"size": 3}, "methods": [{}, {"label": "a", "then": [1]}]}


def test_table_has_the_fixed_order_and_marks_translated(result):
    result["methods"]["another_rival"] = method([1.0])
    table = findings.table(evaluation_of(result))
    names = [str(cell) for cell in table.columns[0].cells]
    assert names[:4] == ["source network", "trained target (step 2)", "translated", "zero block"]
    assert names[4:] == ["random initialisation", "another rival", "odd rival"]
    assert [row.style is not None for row in table.rows] == [name == "translated" for name in names]
    assert re.search(r"translated +│ +85\.0 │ +83\.9–86\.1 │ +80\.0 │ +90\.0 │ +2 ", printed(result))


def test_accuracies_show_means_intervals_and_hosts(result):
    axes = figures.means(evaluation_of(result)).axes[0]
    assert [tick.get_text() for tick in axes.get_yticklabels()][2] == "translated"
    points = {tuple(map(tuple, line.get_xydata())) for line in axes.lines}
    assert ((85.0, 2.0),) in points
    assert any(len(p) == 2 and p[0] == pytest.approx((83.9, 2)) and p[1] == pytest.approx((86.1, 2)) for p in points)
    assert axes.collections[2].get_offsets()[:, 0].tolist() == [80.0, 90.0]
    assert axes.get_ylim()[0] > axes.get_ylim()[1]


def test_many_hosts_are_thinned_with_their_extremes(result):
    result["hosts"]["accuracies"]["translated"] = [i / 100 for i in range(10000)]
    dots = figures.means(evaluation_of(result)).axes[0].collections[2].get_offsets()[:, 0]
    assert len(dots) == figures.MOST_DOTS
    assert (dots.min(), dots.max()) == (0.0, 99.99)


def test_training_marks_the_chosen_epoch_in_both_panels(history):
    drawn = figures.training(history, MeasuredBy(), 2)
    loss, select = drawn.axes
    assert loss.lines[0].get_xydata().tolist() == [[1, 2.0], [2, 1.0], [3, 2 / 3], [4, 0.5]]
    assert select.lines[0].get_xydata().tolist() == [[2, 82.0], [4, 84.0]]
    assert all(list(axes.lines[1].get_xdata()) == [2, 2] for axes in drawn.axes)
    assert "chosen: epoch 2" in words(drawn)


def test_training_without_selection_or_choice():
    steep = [{"epoch": e, "loss": 10.0**-e, "lr": 0.1} for e in range(3)]
    drawn = figures.training(steep, MeasuredBy())
    assert [len(axes.lines) for axes in drawn.axes] == [1]
    assert drawn.axes[0].get_yscale() == "log"
    assert "mathdefault" not in figures.svg(drawn, "loss", "")


def test_histogram_has_bins_of_five_percent():
    drawn = figures.histogram({"translated": [0.0, 4.9, 5.0, 100.0, math.nan], "random_init": [52.0]}, MeasuredBy())
    texts = [text.get_text() for text in drawn.legends[0].texts]
    bars = dict(zip(texts, drawn.axes[0].patches[::2], strict=True))
    outline = bars["translated"].get_xy()
    heights = {x: max(y for at, y in outline if at == x) for x in {float(at) for at, _ in outline}}
    assert (heights[0.0], heights[95.0], heights[100.0]) == (2, 1, 1)
    assert sorted(bars) == ["random initialisation", "translated"]
    assert {float(x) for x, _ in outline} == {float(x) for x in range(0, 101, 5)}


def test_feature_maps_have_their_own_scales_and_columns_in_order(maps):
    maps["translated"][1] *= 100
    maps["translated"][2, 0, 0] = math.inf
    drawn = figures.feature_maps(maps)
    assert [axes.get_title() for axes in drawn.axes if axes.get_title()] == ["input", "source\nblock", "translated"]
    assert [len(axes.images) for axes in drawn.axes] == [3, 3, 3]
    largest = [image.get_clim()[1] for image in drawn.axes[2].images]
    assert largest[0] <= 1 < largest[1]
    assert largest[2] <= 1


def test_feature_maps_are_few():
    maps = {"input": torch.zeros(50, 2, 2), "former": torch.zeros(3, 2, 2, requires_grad=True)}
    assert [len(axes.images) for axes in figures.feature_maps(maps).axes] == [figures.MOST_IMAGES, 3]


def test_svg_takes_the_colours_of_the_page(result):
    text = figures.svg(figures.means(evaluation_of(result)), "name", 'say "this"')
    assert f"var(--ink, {figures.INK})" in text
    assert "<text" in text
    assert not re.search(rf"(?<!, ){figures.INK}", text)
    assert 'aria-label="say &quot;this&quot;"' in text
    assert "xmlns" not in text
    assert "<metadata" not in text


def test_import_is_light():
    code = "import sys, paramtrans.report.figures; sys.exit('matplotlib' in sys.modules or 'torch' in sys.modules)"
    root = Path(figures.__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


PERPLEXITY = {"name": "perplexity", "unit": "", "higher_is_better": False, "bounds": None, "digits": 2}


def test_a_metric_that_is_better_where_it_is_lower_is_named_and_read_so(tmp_path, result, run, history):
    result["metric"] = PERPLEXITY
    result["methods"] = {
        name: method([mean, mean])
        for name, mean in {"random_init": 40.0, "zero_block": 30.0, "translated": 22.0, "trained_target": 20.0}.items()
    }
    said = findings.headline(evaluation_of(result))
    assert said[0].startswith("Translated blocks reach perplexity 22.00 ") and "(zero block) has 30.00." in said[0]
    assert said[1].startswith("That closes 90.0% of the gap")
    assert "Perplexity on the report hosts (lower is better)" in printed(result)
    page, read = page_of(tmp_path, result, run, history, {})
    assert "accuracy" not in page.lower().replace("evaluation.json", "") and "22.00" in read.text
    assert "mean perplexity on the selection hosts" in read.text


def test_a_rival_of_lower_perplexity_does_at_least_as_well(result):
    result["metric"] = PERPLEXITY
    assert findings.headline(evaluation_of(result))[1] == "So that rival does at least as well."


def test_a_histogram_without_bounds_reaches_from_the_lowest_to_the_highest():
    drawn = figures.histogram({"translated": [-0.5, 0.9], "random_init": [-2.0]}, MeasuredBy(**PERPLEXITY))
    assert drawn.axes[0].get_xlim() == (-2.0, 0.9) and drawn.axes[0].get_xlabel() == "perplexity of a host"


def test_a_gap_downwards_is_closed_downwards():
    means = {"random_init": 40.0, "translated": 25.0, "trained_target": 20.0}
    assert gap_closed(means, "translated", higher_is_better=False) == pytest.approx(0.75)
    assert gap_closed(means, "translated") is None
