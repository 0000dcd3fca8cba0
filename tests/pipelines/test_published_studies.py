"""Every claim of every published system has a study; outcomes are of studies as they stand, with reasons."""

import re
from pathlib import Path

import pytest

from kdcache.measures.intervals import LEVEL
from kdcache.pipelines.studies.catalogue import STUDIES, load_study
from kdcache.pipelines.studies.page import pages_of
from kdcache.pipelines.studies.published import Published, outcomes_in
from kdcache.pipelines.studies.study import differences_on

DOCS = Path(__file__).parents[2] / "docs"
FOLDER = DOCS / "figures" / "studies"
PAGE, INSIDE = DOCS / "studies.md", DOCS / "studies"
SYSTEMS: dict[int, tuple[str, ...]] = {  # row of each published system: its claims, by the key of the claim here
    0: (
        "temperature", "temperature_kl", "members", "members_accuracy", "calibrated", "data", "data_train", "own",
        "identical", "no_gain",
    ),
    1: ("kl", "hint", "crd", "order"),
    2: ("size", "eskd", "short"),
    3: ("attention", "fidelity", "information", "accuracy"),
    4: ("sp",),
    5: ("mean", "hurts", "restores"),
    6: ("first", "flatter"),
    7: ("simkd",),
    8: ("order",),
    9: ("as_good", "better", "single", "random"),
    10: ("overconfident", "rises", "control"),
    11: ("mixup_ece", "mixup_accuracy", "cutmix_ece", "cutmix_accuracy"),
    12: ("variance", "bayes", "few", "double", "follows", "not_accuracy"),
    13: ("mean", "single", "direct"),
    14: (
        "random_10", "random_20", "random_30", "random_50", "entropy_10", "entropy_20", "entropy_30", "entropy_50",
        "kd", "paths",
    ),
    15: ("as_good", "better", "ensemble"),
    16: ("assistant", "curriculum", "masked", "decoupled"),
    17: ("self_test", "self_train", "small_test", "switch", "filter"),
    18: ("pt", "sim", "pt_part", "sim_part", "few", "enough"),
    19: ("subclass", "kd"),
    20: ("gain", "control"),
}  # fmt: skip
PUBLISHED = outcomes_in(FOLDER)
one_each = pytest.mark.parametrize("one", PUBLISHED, ids=lambda one: one.name)


def test_every_system_has_a_study_with_all_its_claims() -> None:
    claims: dict[int, set[str]] = {}
    for study in map(load_study, STUDIES):
        claims.setdefault(study.row, set()).update(study.claims)
    assert claims.keys() == SYSTEMS.keys()
    for row, keys in SYSTEMS.items():
        assert set(keys) <= claims[row]


@one_each
def test_an_outcome_is_of_the_study_as_it_stands(one: Published) -> None:
    study, outcome = load_study(one.outcome.study), one.outcome
    assert [claim.key for claim in outcome.claims] == list(study.claims)
    for claim in outcome.claims:
        stated = study.claims[claim.key]
        assert (claim.text, claim.direction, claim.margin) == (stated.text, stated.direction, stated.margin)
        decided = claim.p < LEVEL
        assert (claim.verdict != "not shown") == decided
        assert claim.low <= claim.mean <= claim.high
    data = "kdcache.pipelines.studies.glyphs:glyphs" if one.on else study.data or "Fashion-MNIST at 14 x 14"
    assert outcome.differences == differences_on(study, data)
    assert len(outcome.seeds) >= 8
    assert min(outcome.seeds) >= 1000
    assert (FOLDER / one.picture).is_file()


@one_each
def test_what_is_not_shown_has_a_reason(one: Published) -> None:
    why, on = load_study(one.outcome.study).why, f", {one.on}" if one.on else ""
    missing = [claim.key + on for claim in one.outcome.claims if claim.verdict != "shown" and claim.key + on not in why]
    assert missing == []


def test_every_system_is_published_and_six_on_letters_too() -> None:
    rows = {on: {one.outcome.row for one in PUBLISHED if one.on == on} for on in ("", "glyphs")}
    assert rows == {"": SYSTEMS.keys(), "glyphs": {0, 2, 10, 15, 18, 19}}


def test_every_study_is_published() -> None:
    assert [one.outcome.study for one in PUBLISHED if not one.on] == list(STUDIES)


def test_the_pages_are_those_of_the_outcomes() -> None:
    pages = pages_of(PUBLISHED, FOLDER, PAGE)
    assert {path.name for path in INSIDE.iterdir()} == {path.name for path in pages if path != PAGE}
    for path, text in pages.items():
        assert path.read_text() == text, (
            f"{path.name}: kdcache study --page docs/studies.md --folder docs/figures/studies"
        )


@pytest.mark.parametrize("path", [PAGE, *sorted(INSIDE.iterdir())], ids=lambda path: path.stem)
def test_a_page_is_short_and_its_links_and_pictures_are_there(path: Path) -> None:
    text = path.read_text()
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", text)]
    assert [link for link in links if not (path.parent / link).is_file()] == []
    assert len(text.splitlines()) < 150 or path.stem == "claims"  # a line a claim


def test_the_site_lists_every_page() -> None:
    nav = (DOCS.parent / "mkdocs.yml").read_text()
    assert [path.name for path in INSIDE.iterdir() if f" studies/{path.name}\n" not in nav] == []
