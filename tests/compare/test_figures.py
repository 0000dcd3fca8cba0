"""What figures show, against figures computed by hand."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binomtest, multivariate_normal

from kdcache.pipelines.compare.class_changes import changes, recalls
from kdcache.pipelines.compare.comparison import Answers, Comparison, Group, Member
from kdcache.pipelines.compare.confusions import confusions
from kdcache.pipelines.compare.flip_tables import flip_table
from kdcache.pipelines.compare.learning_curves import spaced
from kdcache.pipelines.compare.marks import PANELS, drawn_groups, mark, marked_groups, truth
from kdcache.pipelines.compare.reliability import sums_of
from kdcache.pipelines.compare.scatter import ellipse
from tests.kits.comparisons import comparison

LABELS = np.array([0, 0, 0, 0, 1, 1, 2, -1], np.int32)


def answers(*decisions: int, confidence: float = 0.9) -> Answers:
    rows = len(decisions)
    return Answers(np.array(decisions, np.int32), np.full(rows, confidence, np.float32), np.zeros(rows, np.float32))


def member(seed: int | None, *decisions: int) -> Member:
    return Member(f"run-{seed}", "", "run", seed, {}, {}, answers(*decisions))


def by_hand() -> Comparison:
    """A teacher that errs on row 3, a baseline with seeds 0 and 1, and a group of the same seeds."""
    base = (member(0, 0, 0, 0, 0, 1, 1, 2, 0), member(1, 0, 0, 1, 1, 1, 1, 2, 0))
    other = (member(0, 0, 0, 0, 2, 1, 0, 2, 1), member(1, 0, 0, 0, 1, 1, 0, 2, 1))
    groups = (Group("a", {}, base, {}), Group("b", {}, other, {}))
    return replace(
        comparison(groups=0), labels=LABELS, teacher=answers(0, 0, 0, 1, 1, 1, 2, 2), groups=groups, baseline="a",
        class_names=("cat", "dog", "eel"),
    )  # fmt: skip


def test_changes_by_class_are_paired_by_seed_and_sorted() -> None:
    made = by_hand()
    base, other = marked_groups(made)
    assert recalls(base.group.members[1], truth(made)).tolist() == [0.5, 1.0, 1.0]
    change = changes(other, base, truth(made))
    assert change.classes.tolist() == [1, 0, 2]
    assert change.means.tolist() == [-0.5, 0.0, 0.0]
    # class 0: -0.25 and +0.25 by seed, so sd 0.3536, over sqrt 2, times t of one degree of freedom
    assert change.halves == pytest.approx([0.0, 12.706 * 0.25, 0.0], rel=1e-4)


def test_confusions_are_counted_where_the_teacher_is_right() -> None:
    made = by_hand()
    groups = marked_groups(made)
    base, other = confusions(made, groups, truth(made))
    assert (base.errors, other.errors, base.rows) == (0.5, 1.0, 6)
    assert [(pair.fits, pair.decided, pair.rows) for pair in base.pairs] == [("cat", "dog", 0.5)]
    assert [(pair.fits, pair.decided, pair.rows, pair.baseline_rows) for pair in other.pairs] == [
        ("dog", "cat", 1.0, 0.0)
    ]


def test_without_labels_the_teacher_is_what_decisions_are_held_against() -> None:
    made = replace(by_hand(), labels=np.full(8, -1, np.int32))
    held = truth(made)
    assert (held.word, held.classes.tolist()) == ("agreement", made.teacher.decisions.tolist())
    assert confusions(made, marked_groups(made), held)[0].rows == 8


def test_reliability_counts_labelled_rows_of_all_runs() -> None:
    made = by_hand()
    sums = sums_of([one.answers for one in made.groups[0].members], made)
    assert sums.shape == (3, 15)
    assert sums[0].sum() == 14
    assert sums[2].sum() == 12
    assert sums[1].sum() == pytest.approx(14 * 0.9, rel=1e-6)
    assert sums_of([answers(*LABELS.tolist(), confidence=1.0)], made)[0, -1] == 7


def test_an_ellipse_holds_95_percent() -> None:
    points = np.array([(1.0, 2.0), (3.0, 5.0), (2.0, 2.5), (4.0, 6.0)])
    outline = ellipse([tuple(point) for point in points]).T
    normal = multivariate_normal(points.mean(axis=0), np.cov(points.T))
    drawn = normal.rvs(20_000, random_state=1)
    matrix = np.linalg.inv(np.cov(points.T))
    radius = np.einsum("ni,ij,nj->n", outline - points.mean(axis=0), matrix, outline - points.mean(axis=0))
    inside = np.einsum("ni,ij,nj->n", drawn - points.mean(axis=0), matrix, drawn - points.mean(axis=0)) <= radius.mean()
    assert np.ptp(radius) < 1e-9
    assert inside.mean() == pytest.approx(0.95, abs=0.005)


def test_letters_at_the_ends_of_lines_do_not_overlap() -> None:
    assert spaced([0.0, 100.0], 10) == [0.0, 100.0]
    assert spaced([50.0, 51.0, 52.0], 10) == [41.0, 51.0, 61.0]
    places = spaced(sorted(np.random.RandomState(1).uniform(0, 100, 30).tolist()), 10)
    assert min(np.diff(places)) >= 10 - 1e-9


def test_marks_are_told_apart_and_the_teacher_s_letter_is_free() -> None:
    marks = [mark(number) for number in range(100)]
    assert len({one.letter for one in marks}) == 100
    assert "T" not in {one.letter for one in marks}
    assert [one.letter for one in marks[23:27]] == ["Y", "Z", "AA", "AB"]
    assert len({(one.hue, one.marker) for one in marks[:8]}) == 8
    assert len({(one.hue, one.dash if isinstance(one.dash, str) else one.dash[1]) for one in marks[:32]}) == 32


def test_of_many_groups_the_best_are_drawn_and_the_baseline() -> None:
    made = comparison(groups=16, seeds=1, rows=50)
    groups = marked_groups(made)
    drawn = drawn_groups(groups)
    assert len(drawn) == PANELS
    assert drawn[0].is_baseline
    left = [one.group.cells["accuracy"].mean for one in groups if one not in drawn]
    assert max(left) <= min(one.group.cells["accuracy"].mean for one in drawn[1:])


def test_flips_are_counts_a_run() -> None:
    made = comparison(groups=2, seeds=2, rows=400)
    (line,) = flip_table(marked_groups(made))
    base, hits = ([one.answers.decisions == made.labels for one in group.members] for group in made.groups)
    lost = [int((right & ~hit).sum()) for right, hit in zip(base, hits, strict=True)]
    won = [int((hit & ~right).sum()) for right, hit in zip(base, hits, strict=True)]
    assert (line.lost, line.won) == (pytest.approx(np.mean(lost)), pytest.approx(np.mean(won)))
    p_values = sorted(binomtest(one, one + other).pvalue for one, other in zip(lost, won, strict=True))
    assert line.p_values == " to ".join(f"{value:.2g}" for value in p_values)
    assert flip_table(marked_groups(comparison(groups=2, labelled=False))) == ()
