"""Pages of runs in a real browser: complete in themselves, readable on a telephone, in the dark and on paper."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here; apt-get install chromium"),
]

NETS = """
from torch import nn
from torchvision.models.resnet import BasicBlock

def small():
    body = (BasicBlock(8, 8) for _ in range(3))
    return nn.Sequential(nn.Conv2d(3, 8, 3), *body, nn.AdaptiveAvgPool2d(1), nn.Flatten())
"""
OVERFLOW = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
CONTRAST = """() => {
  const light = ([r, g, b]) => {
    const of = v => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
    return .2126 * of(r) + .7152 * of(g) + .0722 * of(b);
  };
  const rgb = text => text.match(/[0-9.]+/g).map(Number);
  const behind = node => {
    for (; node; node = node.parentElement) {
      const found = rgb(getComputedStyle(node).backgroundColor);
      if (found.length === 3 || found[3] === 1) return found.slice(0, 3);
    }
    return [255, 255, 255];
  };
  const all = [...document.querySelectorAll("p, th, td, dt, dd, h1, h2, figcaption, caption, svg text")];
  return Math.min(...all.filter(node => node.textContent.trim()).map(node => {
    const style = getComputedStyle(node);
    const [a, b] = [light(rgb(node.closest("svg") ? style.fill : style.color)), light(behind(node))];
    return (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
  }));
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


class Watched:
    """A page with all that it asked for, and all that it complained about."""

    def __init__(self, browser: Any, path: Path, **options: Any) -> None:
        self.page = browser.new_page(**options)
        self.complaints: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(path.as_uri())

    def outside(self) -> list[str]:
        return [url for url in self.asked if not url.startswith(("file:", "data:"))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the tiny example."""
    from paramtrans.cli.main import main
    from paramtrans.plugins import plugins

    where, support = tmp_path_factory.mktemp("run"), Path(__file__).parents[1] / "support"
    plugins.cache_clear()
    plugin, settings = support / "tiny_task.py", (f"run.dir={where}", f"run.cache={where / 'cache'}")
    sets = [part for setting in settings for part in ("--set", setting)]
    assert main(["run", str(support / "tiny.toml"), "--plugin", str(plugin), "--quiet", *sets]) == 0
    plugins.cache_clear()
    return where


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What names a small network for images and its calibration inputs, on the command line."""
    import numpy
    import torch
    from safetensors.torch import save_file

    from paramtrans.networks.loading.architectures import build

    where = tmp_path_factory.mktemp("network")
    (where / "nets.py").write_text(NETS)
    torch.manual_seed(0)
    save_file(build(f"{where / 'nets.py'}:small").state_dict(), where / "model.safetensors")
    numpy.save(where / "images.npy", torch.randn(80, 3, 24, 24).numpy())
    arch, data = f"{where / 'nets.py'}:small", str(where / "images.npy")
    return [str(where / "model.safetensors"), "--arch", arch, "--calibrate", data]


@pytest.fixture(scope="module", params=["report", "compare", "translate", "explore"])
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from paramtrans.cli.main import main

    if request.param in ("translate", "explore"):
        where, words = tmp_path_factory.mktemp("page"), request.getfixturevalue("network")
        more = ["-o", f"{where}/small.safetensors"] if request.param == "translate" else ["--ratios", "0.75,0.5,0.25"]
        page = where / f"{request.param}.html"
        assert main([request.param, *words, *more, "--report", str(page), "--quiet"]) == 0
        return page
    folder: Path = request.getfixturevalue("folder")
    if request.param == "report":
        return folder / "report.html"
    other = Path(__file__).parents[1] / "golden" / "run"
    page = folder / "compare.html"
    assert main(["compare", str(folder), str(other), "--html", str(page), "--quiet"]) == 0
    return page


def test_a_page_needs_nothing_from_elsewhere_and_has_no_errors(browser, path: Path) -> None:
    watched = Watched(browser, path)
    assert watched.complaints == []
    assert watched.outside() == [] and len(watched.asked) == 1


def test_what_is_watched_for_would_be_seen(browser, tmp_path: Path) -> None:
    (tmp_path / "bad.html").write_text("<img src='http://127.0.0.1:9/x.png'><script>throw Error('seen')</script>")
    watched = Watched(browser, tmp_path / "bad.html")
    assert watched.outside() == ["http://127.0.0.1:9/x.png"] and any("seen" in text for text in watched.complaints)


def test_tables_and_figures_are_there_and_drawn(browser, path: Path) -> None:
    page = Watched(browser, path).page
    tables = {"translate.html": ("parameters", 2), "explore.html": ("0.25", 1)}
    first, count = tables.get(path.name, ("translated", 2))
    assert page.locator("table").count() >= count and first in page.locator("table").first.inner_text()
    figures = page.locator("figure svg")
    assert figures.count() == (4 if path.name == "report.html" else 1)
    for number in range(figures.count()):
        box = figures.nth(number).bounding_box()
        assert box["width"] > 300 and box["height"] > 60
    if path.name == "report.html":
        assert "[task]" in page.locator("pre").inner_text().splitlines()
        assert "torch" in page.locator("dl.facts").last.inner_text()


def test_examples_of_a_translation_are_seen(browser, network: list[str], tmp_path: Path) -> None:
    from paramtrans.cli.main import main

    out, report = tmp_path / "small.safetensors", tmp_path / "page.html"
    assert main(["translate", *network, "-o", str(out), "--report", str(report), "--quiet"]) == 0
    page = Watched(browser, report).page
    drawn = "() => [...document.images].map(one => one.complete && one.naturalWidth)"
    assert page.evaluate(drawn) == [24] * 6
    assert page.locator(".samples").inner_text().count("class ") == 12
    assert '"feature_error"' in page.locator("pre").text_content()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everything_can_be_read_in_the_light_and_in_the_dark(browser, path: Path, scheme: str) -> None:
    page = Watched(browser, path, color_scheme=scheme).page
    assert page.evaluate(CONTRAST) >= 4.5  # WCAG AA for text


@pytest.mark.parametrize("width", [320, 390, 768, 1600])
def test_no_page_is_wider_than_the_screen(browser, path: Path, width: int) -> None:
    page = Watched(browser, path, viewport={"width": width, "height": 800}).page
    assert page.evaluate(OVERFLOW) <= 0


def test_on_paper_nothing_is_cut_off(browser, path: Path) -> None:
    page = Watched(browser, path, viewport={"width": 700, "height": 1000}).page
    page.emulate_media(media="print")
    cut = "() => [...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth + 1).length"
    assert page.evaluate(cut) == 0
    assert page.pdf().startswith(b"%PDF")
