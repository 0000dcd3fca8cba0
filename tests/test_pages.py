"""No page quotes a figure that is older than its JSON: what a generator wrote is what it gives today."""

from pathlib import Path

import pytest

from tests.benchmarks import report
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
