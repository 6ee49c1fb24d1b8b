"""News fragments: they land in the changelog once, in order, and a file that is none is named."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

pytestmark = pytest.mark.docs

ROOT = Path(__file__).parents[2]
CHANGELOG = "# Changelog\n\n## 0.2.0 (unreleased)\n\n- An older line.\n\n## 0.1.0\n\n- The first.\n"


@pytest.fixture(scope="module")
def news() -> ModuleType:
    """docs/news.py, which is a program and not part of the package."""
    spec = importlib.util.spec_from_file_location("news_program", ROOT / "docs" / "news.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look it up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project with a changelog and two fragments."""
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG)
    (tmp_path / "news").mkdir()
    (tmp_path / "news" / "README.md").write_text("What to write.\n")
    (tmp_path / "news" / "+b-crash.fixed.md").write_text("No crash\nany more.\n")
    (tmp_path / "news" / "+z-new.added.md").write_text("A new option.\n")
    return tmp_path


def test_fragments_stand_at_the_top_of_the_unreleased_version(news: ModuleType, root: Path) -> None:
    assert news.main([], root) == 0
    wanted = "(unreleased)\n\n- A new option.\n- Fixed: No crash any more.\n- An older line.\n\n## 0.1.0\n"
    assert (root / "CHANGELOG.md").read_text() == CHANGELOG.replace(
        "(unreleased)\n\n- An older line.\n\n## 0.1.0\n", wanted
    )


def test_fragments_are_moved_once(news: ModuleType, root: Path) -> None:
    news.main([], root)
    assert [path.name for path in (root / "news").iterdir()] == ["README.md"]
    after = (root / "CHANGELOG.md").read_text()
    assert news.main([], root) == 0
    assert (root / "CHANGELOG.md").read_text() == after


def test_a_version_that_says_nothing_yet_takes_them(news: ModuleType, root: Path) -> None:
    (root / "CHANGELOG.md").write_text("# Changelog\n\n## 0.2.0 (unreleased)\n\n## 0.1.0\n\n- The first.\n")
    news.main([], root)
    wanted = "(unreleased)\n\n- A new option.\n- Fixed: No crash any more.\n\n## 0.1.0\n"
    assert wanted in (root / "CHANGELOG.md").read_text()


def test_long_lines_are_wrapped_without_breaking_words(news: ModuleType, root: Path) -> None:
    (root / "news" / "+z-new.added.md").write_text("well-known " * 30)
    news.main([], root)
    lines = (root / "CHANGELOG.md").read_text().splitlines()
    assert max(map(len, lines)) <= 120
    assert {word for line in lines for word in line.split() if "known" in word} == {"well-known"}


def test_checking_changes_nothing(news: ModuleType, root: Path) -> None:
    before = {path: path.read_text() for path in root.rglob("*.md")}
    assert news.main(["--check"], root) == 0
    assert {path: path.read_text() for path in root.rglob("*.md")} == before


@pytest.mark.parametrize(
    ("name", "text"), [("no-plus.added.md", "x"), ("+x.improved.md", "x"), ("+X.added.md", "x"), ("+x.added.md", " \n")]
)
def test_a_file_that_is_no_fragment_is_named_and_nothing_moves(
    news: ModuleType, root: Path, name: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "news" / name).write_text(text)
    assert news.main([], root) == 1
    assert name in capsys.readouterr().err
    assert (root / "CHANGELOG.md").read_text() == CHANGELOG


def test_a_changelog_without_an_unreleased_version_is_left_alone(news: ModuleType, root: Path) -> None:
    (root / "CHANGELOG.md").write_text("# Changelog\n\n## 0.1.0\n")
    with pytest.raises(SystemExit, match="unreleased"):
        news.main([], root)
    assert (root / "news" / "+z-new.added.md").exists()


def test_the_fragments_that_wait_are_in_order(news: ModuleType) -> None:
    assert news.main(["--check"]) == 0
