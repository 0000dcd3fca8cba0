"""No page quotes a figure that is older than its JSON: what a generator wrote is what it gives today."""

from pathlib import Path

import pytest

from tests.benchmarks import card, language_sizes, report, scale, tails, targets, text_scale
from tests.benchmarks.__main__ import main as bench
from tests.kits.house import ROOT

DOCS = ROOT / "docs"
FIGURES = DOCS / "figures"


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    """A copy of the pages, beside the JSONs themselves."""
    for path in (*DOCS.glob("*.md"), *DOCS.glob("performance/*.md"), *FIGURES.glob("*.json")):
        copy = tmp_path / path.relative_to(DOCS)
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes(path.read_bytes())
    return tmp_path


def changed(docs: Path) -> list[str]:
    """The files of a copy that differ from the published ones, or that these lack."""
    files = [path for path in docs.rglob("*") if path.suffix in (".md", ".json")]
    names = [path.relative_to(docs).as_posix() for path in files]
    return [
        name for name in names if not (DOCS / name).exists() or (docs / name).read_bytes() != (DOCS / name).read_bytes()
    ]


def test_pages_of_performance(docs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(report, "plot", lambda groups, path: None)
    for path in docs.glob("performance/*.md"):
        path.unlink()
    assert bench(["--rewrite", "--out", str(docs / "performance.md")]) == 0
    assert changed(docs) == []
    published = sorted(path.name for path in DOCS.glob("performance/*.md"))
    assert sorted(path.name for path in docs.glob("performance/*.md")) == published
    groups, conditions = report.read(docs / "performance.md")
    assert capsys.readouterr().out.splitlines() == [report.line_of_counts(groups)]
    assert conditions.keys() == groups.keys()
    nav = (ROOT / "mkdocs.yml").read_text()
    assert [name for name in published if f": performance/{name}\n" not in nav] == []


def test_page_of_scale(docs: Path) -> None:
    scale.main(["--rewrite", "--figures", str(FIGURES), "--out", str(docs / "scale.md")])
    assert changed(docs) == []


def test_pages_of_language(docs: Path) -> None:
    for name, main in (
        ("language_sizes", language_sizes.main),
        ("language_labels", targets.main),
        ("language", text_scale.main),
    ):
        main(["--rewrite", "--figures", str(FIGURES), "--out", str(docs / f"{name}.md")])
    assert changed(docs) == []


def test_page_of_tails(docs: Path) -> None:
    tails.main(["--rewrite", "--out", str(FIGURES), "--page", str(docs / "tails.md")])
    assert changed(docs) == []


def test_a_page_that_is_older_than_its_json_differs(docs: Path) -> None:
    page = docs / "tails.md"
    page.write_text(page.read_text().replace("0.031, 10°", "0.032, 10°"))
    assert changed(docs) == ["tails.md"]
    tails.main(["--rewrite", "--out", str(FIGURES), "--page", str(page)])
    assert changed(docs) == []


def test_the_card_is_put_between_its_marks(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("before\n\n" + "\nold\n".join(card.BLOCK) + "\n\nafter\n")
    card.main(["--figures", str(FIGURES), "--write", str(readme)])
    text = readme.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert card.card(FIGURES) in text
    assert len([line for line in text.splitlines() if line.startswith("| ")]) == len(card.LINES) + 1
    assert "accuracy of a student" in text
    readme.write_text("no marks")
    card.main(["--figures", str(FIGURES), "--write", str(readme)])
    assert readme.read_text() == "no marks"


def test_the_card_of_the_readme(tmp_path: Path) -> None:
    """Where the README has the marks."""
    copy = tmp_path / "README.md"
    copy.write_bytes((ROOT / "README.md").read_bytes())
    card.main(["--figures", str(FIGURES), "--write", str(copy)])
    assert copy.read_bytes() == (ROOT / "README.md").read_bytes()
