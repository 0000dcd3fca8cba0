"""The page of a comparison: one file that loads nothing, sections as the data allow, and no stranger's code."""

import re
from dataclasses import replace
from math import inf, nan
from pathlib import Path

import pytest

from kdcache.errors import InvalidInputError
from kdcache.pipelines.compare.comparison import Comparison, Spread
from kdcache.pipelines.compare.page import page, require_page, write_page
from tests.kits.comparisons import HOSTILE, comparison, hostile, many_classes, without_rows
from tests.kits.pages import Page

LABELLED = [
    "What is compared", "Measures", "Settings", "Accuracy and agreement", "Accuracy by setting", "Reliability",
    "Exaggeration", "Change by class", "Errors that the teacher does not make", "Training", "Flips", "Bytes",
]  # fmt: skip
UNLABELLED = [
    "What is compared", "Measures", "Settings", "Agreement", "Agreement by setting", "Exaggeration", "Change by class",
    "Departures from the teacher", "Training", "Bytes",
]  # fmt: skip
SINGLE = [
    "What is compared", "Measures", "Settings", "Accuracy and agreement", "Reliability", "Exaggeration",
    "Errors that the teacher does not make", "Training",
]  # fmt: skip
VALIDATED = [
    "What is compared", "Measures", "Settings", "Accuracy and agreement", "Accuracy by setting", "Training", "Bytes",
]  # fmt: skip
STORES = [heading for heading in LABELLED if heading != "Training"]


@pytest.fixture(scope="module")
def usual() -> str:
    return page(comparison(pictures=4))


def test_the_page_is_one_file_that_loads_nothing(usual: str, tmp_path: Path) -> None:
    write_page(comparison(groups=1, seeds=1, rows=100), str(tmp_path / "report.html"))
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    for text in (usual, (tmp_path / "report.html").read_text()):
        parsed = Page(text)
        assert parsed.unclosed == []
        assert all(address.startswith(("data:", "#")) for address in parsed.addresses)
        assert not re.search(r"https?://|@import|@font-face|url\((?!#)", text)
        assert parsed.count("script") == 1


def test_the_policy_allows_this_script_and_inline_style_alone(usual: str) -> None:
    policy = next(
        attributes["content"]
        for tag, attributes in Page(usual).elements
        if "http-equiv" in attributes and tag == "meta"
    )
    assert policy is not None
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert rules["script-src"].startswith("'sha256-")
    assert (rules["img-src"], rules["style-src"]) == ("data:", "'unsafe-inline'")


@pytest.mark.parametrize(
    ("made", "headings"),
    [
        (comparison(pictures=4), LABELLED),
        (comparison(labelled=False), UNLABELLED),
        (comparison(groups=1, seeds=1), SINGLE),
        (comparison(kind="store", seeds=1), STORES),
        (without_rows(), VALIDATED),
    ],
    ids=["labels", "no labels", "one run", "stores", "no rows"],
)
def test_sections_without_data_are_left_out(made: Comparison, headings: list[str]) -> None:
    parsed = Page(page(made))
    assert parsed.headings == headings
    assert "nan" not in parsed.text.lower().split()


def test_pictures_are_shown_where_there_are_some(usual: str) -> None:
    shown = [attributes for tag, attributes in Page(usual).elements if tag == "img"]
    assert len(shown) == 4
    assert all(
        0 < int(side) <= 128 for attributes in shown for side in (attributes["width"] or "", attributes["height"] or "")
    )
    assert "wrong → right" in usual
    assert Page(page(comparison())).count("img") == 0


def test_warnings_stand_above_all_else() -> None:
    parsed = Page(
        page(replace(comparison(groups=1, seeds=1), warnings=("The runs were trained on 12 of these rows.",)))
    )
    assert parsed.headings[0] == "Warning"
    assert parsed.text.index("trained on 12 of these rows") < parsed.text.index("What is compared")


def test_what_strangers_write_is_text() -> None:
    text = page(hostile())
    parsed = Page(text)
    assert (parsed.count("script"), parsed.unclosed) == (1, [])
    assert not [name for _, attributes in parsed.elements for name in attributes if name.startswith("on")]
    assert all(address.startswith(("data:", "#")) for address in parsed.addresses)
    assert not {character for character in text if not character.isprintable()} - {"\n"}
    for shown in (
        HOSTILE[0],
        HOSTILE[1],
        r"evil\x202e\x2066txt",
        "{{ 7 * 7 }}",
        r"lone \xd800",
        "&amp; <b>",
        "#0a0b10",
    ):
        assert shown in parsed.text
    assert "猫猫…" in parsed.text
    assert 'style="fill: #0a0b10"' in parsed.text


def test_figures_are_drawn_in_the_page_s_colours_and_letters(usual: str) -> None:
    figures = re.findall(r"<svg.*?</svg>", usual, re.DOTALL)
    assert len(figures) == 1 + 1 + 4 + 3 + 2 + 2 + 1
    for figure in figures:
        assert not re.search(r"#[0-9a-f]{6}\b", re.sub(r">[^<]*<", "><", figure).replace("url(#", "")), figure[:200]
        assert "font-family" not in figure
        assert "<text" in figure
        assert re.match(r'<svg viewBox="0 0 [\d. ]+" role="img" aria-label="[^"]+">', figure)
    identifiers = re.findall(r' id="([^"]+)"', usual)
    assert len(identifiers) == len(set(identifiers))
    colours = set(re.findall(r"var\(--(\w+)\)", "".join(figures)))
    assert colours == {"ink", "muted", "rule", "g1", "g2", "g3"}
    assert all(f"--{colour}:" in usual for colour in colours)


def test_a_measure_that_is_not_exact_says_so_and_formulas_are_given(usual: str) -> None:
    assert '<em class="exactness">sketch</em>' in usual
    assert '<em class="exactness">bound</em>' in usual
    assert 'title="mean 1{argmax q = y}"' in usual


def test_the_page_is_the_same_twice_and_whatever_matplotlib_is_set_to(usual: str) -> None:
    import matplotlib

    with matplotlib.rc_context({"font.size": 30, "svg.fonttype": "path", "axes.facecolor": "red"}):
        before = dict(matplotlib.rcParams)
        assert page(comparison(pictures=4)) == usual
        assert dict(matplotlib.rcParams) == before


def test_the_page_stays_small_however_much_is_compared() -> None:
    usual = comparison(groups=8, rows=10_000, epochs=100, pictures=16)
    assert len(page(usual).encode()) < 1_500_000
    assert sum(len(group.members) for group in usual.groups) == 24
    largest = page(comparison(groups=25, seeds=4, rows=500, class_names=many_classes(1000), epochs=300, pictures=60))
    assert len(largest.encode()) < 3_000_000
    assert "Of 25 groups 12 are drawn" in largest
    assert largest.count("<img") == 48


def test_a_page_that_cannot_be_made_is_refused_early(tmp_path: Path) -> None:
    require_page(str(tmp_path / "a.html"))
    with pytest.raises(InvalidInputError, match=r"let it end in \.html"):
        require_page(str(tmp_path / "a.pdf"))
    with pytest.raises(InvalidInputError, match="there is no folder"):
        require_page(str(tmp_path / "b/a.html"))
    (tmp_path / "c.html").mkdir()
    with pytest.raises(InvalidInputError, match="is a folder"):
        require_page(str(tmp_path / "c.html"))


def test_a_group_that_copies_its_teacher_has_a_page_too() -> None:
    made = comparison(groups=2, seeds=3, rows=40)
    copies = [
        replace(
            group, members=tuple(replace(one, answers=made.teacher, measures=first.measures) for one in group.members)
        )
        for group in made.groups
        for first in group.members[:1]
    ]
    parsed = Page(page(replace(made, groups=tuple(copies), labels=made.teacher.decisions)))
    assert "0 of 40 rows" in parsed.text
    assert "no class loses" in parsed.text


def test_measures_that_are_not_finite_are_shown_and_sort() -> None:
    made = comparison(groups=3, seeds=1, rows=40)
    odd = [
        replace(group, cells={**group.cells, "nll": Spread(value, None, None, 1)})
        for group, value in zip(made.groups, (inf, nan, 1.0), strict=True)
    ]
    text = page(replace(made, groups=tuple(odd)))
    for shown in ("∞", "–", "1.000"):
        assert f'<span class="mean">{shown}</span>' in text
    assert 'data-sort="Infinity"' in text
    assert 'data-sort=""' in text


def test_a_comparison_without_groups_still_has_a_page() -> None:
    assert Page(page(comparison(groups=0))).headings == ["What is compared", "Settings"]
