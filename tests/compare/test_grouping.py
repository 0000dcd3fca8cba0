"""Groups of a comparison: what sets them apart, intervals over seeds, paired differences, a jackknife of one run."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from kdcache.errors import InvalidInputError
from kdcache.measures.facts import Value
from kdcache.measures.tally import Tally, total
from kdcache.pipelines.compare.comparison import Answers, Member
from kdcache.pipelines.compare.grouping import grouped, with_cells

NOTHING = Answers(np.zeros(0, np.int32), np.zeros(0, np.float32), np.zeros(0, np.float32))


def run(name: str, seed: int | None, accuracy: float, **settings: Any) -> Member:
    measures = {"accuracy": Value(value=accuracy, unit="share", rows=100)}
    return Member(name, f"runs/{name}", "run", seed, settings, measures, NOTHING)


P_VALUE = Value(value=0.3, unit="p value", rows=100)
KD = [run(f"kd{seed}", seed, value, objective="kd", lr=0.1) for seed, value in enumerate((0.80, 0.82, 0.81))]
DKD = [run(f"dkd{seed}", seed, value, objective="dkd", lr=0.1) for seed, value in enumerate((0.83, 0.84, 0.85))]


def test_runs_that_differ_in_the_seed_are_a_group_named_by_what_sets_it_apart() -> None:
    groups, common = grouped([*KD, *DKD], "")
    assert [(group.name, len(group.members)) for group in groups] == [("kd", 3), ("dkd", 3)]
    assert common == {"lr": 0.1}
    both = [*KD, run("other", 0, 0.7, objective="kd", lr=0.2)]
    assert [group.name for group in grouped(both, "")[0]] == ["lr 0.1", "lr 0.2"]
    names = [group.name for group in grouped([*both, *DKD], "")[0]]
    assert names == ["kd, lr 0.1", "kd, lr 0.2", "dkd, lr 0.1"]


def test_one_setting_groups_alone() -> None:
    members = [*KD, *DKD, run("other", 7, 0.7, objective="kd", lr=0.2)]
    groups, _ = grouped(members, "lr")
    assert [(group.name, len(group.members)) for group in groups] == [("lr 0.1", 6), ("lr 0.2", 1)]
    with pytest.raises(InvalidInputError, match="no run has a setting depth; those that differ are lr, objective"):
        grouped(members, "depth")


def test_no_seed_counts_twice() -> None:
    with pytest.raises(InvalidInputError, match=r"runs/kd0 and runs/again have equal settings and the same seed 0"):
        grouped([*KD, run("again", 0, 0.8, objective="kd", lr=0.1)], "")


def test_intervals_are_student_s_and_differences_are_paired() -> None:
    groups, by = with_cells(grouped([*KD, *DKD], "")[0], "kd", ["accuracy"], {})
    cell, difference = groups[0].cells["accuracy"], groups[1].differences["accuracy"]
    assert by == "seeds"
    low, high = stats.t.interval(0.95, 2, 0.81, stats.sem([0.80, 0.82, 0.81]))
    assert (cell.mean, cell.low, cell.high, cell.n) == (pytest.approx(0.81), pytest.approx(low), pytest.approx(high), 3)
    reference = stats.ttest_rel([0.83, 0.84, 0.85], [0.80, 0.82, 0.81]).confidence_interval(0.95)
    assert (difference.low, difference.high) == (pytest.approx(reference.low), pytest.approx(reference.high))
    assert not groups[0].differences
    assert groups[1].is_paired


def test_groups_of_other_seeds_are_held_apart_by_welch() -> None:
    others = [run(f"x{seed}", seed, value, objective="dist", lr=0.1) for seed, value in ((8, 0.6), (9, 0.7), (10, 0.9))]
    groups, _ = with_cells(grouped([*KD, *others], "")[0], "kd", ["accuracy"], {})
    difference = groups[1].differences["accuracy"]
    reference = stats.ttest_ind([0.6, 0.7, 0.9], [0.80, 0.82, 0.81], equal_var=False).confidence_interval(0.95)
    assert (difference.low, difference.high) == (pytest.approx(reference.low), pytest.approx(reference.high))
    assert not groups[1].is_paired


def test_single_runs_have_intervals_over_rows_and_are_not_mixed_with_seeds() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, y = torch.randn(2000, 5, generator=generator), torch.randint(0, 5, (2000,), generator=generator)
    better = logits + 2 * torch.nn.functional.one_hot(y, 5) * (torch.rand(2000, 1, generator=generator) < 0.3)
    parts: dict[str, list[Tally]] = {}
    members = []
    for name, answers in (("a", logits), ("b", better)):
        tallies = [Tally() for _ in range(20)]
        for tally, rows in zip(tallies, torch.arange(2000).split(100), strict=True):
            tally.update(answers[rows], hard=y[rows])
        parts[f"runs/{name}"] = tallies
        settings = {"objective": name}
        members.append(Member(name, f"runs/{name}", "run", 0, settings, total(tallies).result(), NOTHING))
    groups, by = with_cells(grouped(members, "")[0], "a", ["accuracy", "nll"], parts)
    assert by == "rows"
    hits = (better.argmax(-1) == y).double()
    cell, sem = groups[1].cells["accuracy"], float(hits.std()) / 2000**0.5
    assert cell.low is not None
    assert cell.high is not None
    assert cell.low < cell.mean < cell.high
    assert 0.5 * 3.92 * sem < cell.high - cell.low < 1.6 * 3.92 * sem
    difference = groups[1].differences["accuracy"]
    assert difference.low is not None
    assert difference.low > 0
    few = {place: [total(tallies[:10]), total(tallies[10:])] for place, tallies in parts.items()}
    assert with_cells(grouped(members, "")[0], "a", ["accuracy"], few)[0][1].cells["accuracy"].low is None
    mixed, by = with_cells(grouped([*KD, run("x", 0, 0.7, objective="x", lr=0.1)], "")[0], "kd", ["accuracy"], {})
    assert by == "seeds"
    assert mixed[1].cells["accuracy"].low is None
    assert mixed[1].differences["accuracy"].low is None


def test_a_jackknife_covers_what_it_says() -> None:
    """Of 300 draws of 2,000 rows in 20 parts, the interval of the accuracy holds the truth in about 95 %."""
    generator = torch.Generator().manual_seed(1)
    held = 0
    for _ in range(300):
        hits = torch.rand(2000, generator=generator) < 0.8
        tallies = [Tally(["accuracy"]) for _ in range(20)]
        for tally, rows in zip(tallies, hits.split(100), strict=True):
            tally.update(torch.stack([rows.float(), 1 - rows.float()], dim=1), hard=torch.zeros(100, dtype=torch.long))
        member = Member("a", "a", "run", 0, {"objective": "a"}, total(tallies).result(), NOTHING)
        cell = with_cells(grouped([member], "")[0], "runs", ["accuracy"], {"a": tallies})[0][0].cells["accuracy"]
        assert cell.low is not None
        assert cell.high is not None
        held += cell.low <= 0.8 <= cell.high
    assert 0.91 <= held / 300 <= 0.985


def test_no_mean_of_p_values_is_shown() -> None:
    members = [
        Member(f"{o}{seed}", f"{o}{seed}", "run", seed, {"objective": o}, {"mcnemar_baseline": P_VALUE}, NOTHING)
        for o in ("a", "b")
        for seed in (0, 1)
    ]
    groups, _ = with_cells(grouped(members, "")[0], "a", ["mcnemar_baseline"], {})
    assert not groups[1].cells
    assert not groups[1].differences
