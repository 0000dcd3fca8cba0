"""The page of studies says what their outcomes hold, and publishes no toys."""

from pathlib import Path

import numpy as np
import pytest

from kdcache.cli import study as cli_study
from kdcache.errors import FormatError, InvalidInputError
from kdcache.pipelines.studies.catalogue import load_study
from kdcache.pipelines.studies.claims import Findings
from kdcache.pipelines.studies.figure import draw
from kdcache.pipelines.studies.outcome import Outcome, judged_claims, load, path_of, plain, save
from kdcache.pipelines.studies.page import write_pages
from kdcache.pipelines.studies.published import interval_text

SEEDS = tuple(range(1000, 1008))


def outcome_of(name: str, *, seeds: tuple[int, ...] = SEEDS, toy: bool = False) -> Outcome:
    """An outcome of a study whose numbers are drawn: of every claim, and of the baseline and one more arm."""
    study, generator = load_study(name), np.random.default_rng(0)
    evidence = {
        key: generator.normal(0.03 * number - 0.05, 0.03, len(seeds)) for number, key in enumerate(study.claims)
    }
    arms = {arm: {study.measure: generator.uniform(0.7, 0.8, len(seeds))} for arm in (study.baseline, "another")}
    findings = Findings(arms, evidence, ("a note of the study",))
    return Outcome(
        study=name, row=study.row, title=study.title, paper=study.paper, question=study.question, data="drawn",
        seeds=seeds, toy=toy, baseline=study.baseline, measure=study.measure, arms=plain(findings.arms),
        claims=judged_claims(study, findings), differences=study.differences, notes=findings.notes, seconds=12.0,
        cpu_seconds=20.0, made=3, present=4, rows_asked=500, versions={"torch": "2"}, device="cpu",
        command="kdcache study",
    )  # fmt: skip


def test_an_outcome_is_read_as_it_was_written(tmp_path: Path) -> None:
    outcome = outcome_of("tang")
    save(outcome, tmp_path)
    assert load(tmp_path, "tang") == outcome
    assert load(tmp_path, "cho") is None
    path_of(tmp_path, "tang").write_text("{}")
    with pytest.raises(FormatError, match=r"tang.json"):
        load(tmp_path, "tang")


def test_the_pages_have_a_line_for_every_claim(tmp_path: Path) -> None:
    outcomes = [outcome_of("tang"), outcome_of("cho")]
    for outcome in outcomes:
        save(outcome, tmp_path / "figures")
        draw(outcome, tmp_path / f"figures/{outcome.study}.png")
    written = write_pages(tmp_path / "figures", tmp_path / "studies.md")
    assert [path.relative_to(tmp_path).as_posix() for path in written] == [
        "studies.md", "studies/claims.md", "studies/cho.md", "studies/tang.md"
    ]  # fmt: skip
    overview, claims = ((tmp_path / name).read_text().splitlines() for name in ("studies.md", "studies/claims.md"))
    for outcome in outcomes:
        assert f"| {outcome.question} | {outcome.verdict} |" in next(
            line for line in overview if f"| [{outcome.study}](studies/{outcome.study}.md) |" in line
        )
        page = (tmp_path / f"studies/{outcome.study}.md").read_text().splitlines()
        for claim in outcome.claims:
            numbers = f"| {claim.paper or '-'} | {interval_text(claim)} |"
            assert [line for line in page if f"| {claim.text} {numbers} {claim.verdict} |" in line]
            line = f"| [{outcome.study}]({outcome.study}.md) | {claim.text} {numbers} {len(SEEDS)} | {claim.verdict} |"
            assert [each for each in claims if line in each]
        picture = next(line for line in page if line.startswith(f"![{outcome.study}:"))
        assert (tmp_path / "studies" / picture.partition("(")[2].rstrip(")")).is_file()
        for arm in outcome.arms:
            assert [line for line in page if line.startswith(f"| {arm} | 7")]
    assert len({claim.verdict for outcome in outcomes for claim in outcome.claims}) == 3


def test_a_second_data_set_stands_below_the_first(tmp_path: Path) -> None:
    for folder in (tmp_path / "figures", tmp_path / "figures/glyphs"):
        save(outcome_of("tang"), folder)
    write_pages(tmp_path / "figures", tmp_path / "studies.md")
    page = (tmp_path / "studies/tang.md").read_text()
    assert (
        page.index("\n## Claims\n")
        < page.index("\n## Asked again on glyphs\n")
        < page.index("\n### Claims on glyphs\n")
    )
    for text in outcome_of("tang").differences:
        assert page.count(text) == 1
    verdict = outcome_of("tang").verdict
    assert f"| {verdict} | {verdict} |" in (tmp_path / "studies.md").read_text()


def test_a_pipe_in_a_claim_is_no_border_of_its_cell(tmp_path: Path) -> None:
    save(outcome_of("stanton"), tmp_path / "figures")
    write_pages(tmp_path / "figures", tmp_path / "studies.md")
    assert "KL(teacher \\|\\| student)" in (tmp_path / "studies/stanton.md").read_text()


@pytest.mark.parametrize(
    "changes",
    [{"toy": True}, {"seeds": SEEDS[:7]}, {"seeds": tuple(range(8))}],
    ids=["toy", "seven seeds", "tried seeds"],
)
def test_what_must_not_be_published_is_refused(changes: dict[str, object], tmp_path: Path) -> None:
    save(outcome_of("tang", **changes), tmp_path)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match=r"tang was run on seeds .*a page needs 8 or more from 1000 on"):
        write_pages(tmp_path, tmp_path / "studies.md")
    assert not (tmp_path / "studies.md").exists()


def test_a_folder_without_outcomes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="holds no outcome"):
        write_pages(tmp_path, tmp_path / "studies.md")


def test_an_arm_without_the_measure_has_no_difference(capsys: pytest.CaptureFixture[str]) -> None:
    outcome = outcome_of("yang")
    arms = {**outcome.arms, "teacher 16": {"ece": (0.1,) * len(SEEDS)}}
    cli_study._print(outcome.model_copy(update={"arms": arms}), "")
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "teacher 16" in line]
    assert "nan" not in line
    assert [cell.strip() for cell in line.split("│")[1:-1]] == ["teacher 16", "-", "10", "-"]
