"""decisions and flips: mutual information, rows lost and won, McNemar's p."""

from itertools import pairwise
from math import comb, log

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from sklearn.metrics import mutual_info_score
from statsmodels.stats.contingency_tables import mcnemar

from kdcache.measures.counts import Counts
from tests.kits.measures import figures, full_teacher, random_case


def deciding(classes: list[int], count: int) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.tensor(classes), count).double()


def information(teacher: list[int], student: list[int], count: int) -> float:
    soft = full_teacher(deciding(teacher, count).numpy())
    return figures(deciding(student, count), soft)["decision_information"]


def test_information_by_hand() -> None:
    assert information([0, 0, 1, 1], [1, 1, 0, 0], 2) == pytest.approx(log(2), abs=1e-12)  # renamed: one bit
    assert information([0, 0, 1, 1], [0, 1, 0, 1], 2) == pytest.approx(0.0, abs=1e-12)  # independent
    # n_00 = 2, n_01 = 1, n_11 = 1 of 4; teacher 3 : 1, student 2 : 2
    terms = 2 / 4 * log(4 * 2 / (3 * 2)) + 1 / 4 * log(4 * 1 / (3 * 2)) + 1 / 4 * log(4 * 1 / (1 * 2))
    assert information([0, 0, 0, 1], [0, 0, 1, 1], 2) == pytest.approx(terms, abs=1e-12)


def test_scikit_learn_agrees_on_information() -> None:
    case = random_case(classes=40)
    score = mutual_info_score(case.p.argmax(axis=1), case.q.argmax(axis=1))
    assert figures(case.logits, full_teacher(case.teacher))["decision_information"] == pytest.approx(score, abs=1e-12)


def test_counts_hold_only_what_occurs_and_add_up() -> None:
    rng = np.random.RandomState(0)
    first, second = rng.randint(0, 100_000, (2, 5000))
    first[:50], second[:50] = 99_999, 7
    total = Counts()
    for rows in np.array_split(np.arange(5000), 37):
        total = total + Counts.of_pairs(first[rows], second[rows])
    pieces = [len(keys) for keys, _ in total._pieces]
    assert all(large > 2 * small for large, small in pairwise(pieces))
    a, b, counts = total.pairs()
    pairs, wanted = np.unique(np.stack([first, second]), axis=1, return_counts=True)
    assert (np.array_equal(a, pairs[0]), np.array_equal(b, pairs[1]), np.array_equal(counts, wanted)) == (True,) * 3
    assert counts.max() == 50
    assert [len(part) for part in Counts().pairs()] == [0, 0, 0]


def test_flips_by_hand() -> None:
    """y is 0 in five rows and unknown in the sixth. The teacher is right in rows 1 to 3, the student in row 4."""
    teacher = full_teacher(deciding([0, 0, 0, 1, 1, 0], 2).numpy())
    values = figures(deciding([1, 1, 1, 0, 1, 1], 2), teacher, [0, 0, 0, 0, 0, -1], [0, 1, 1, 0, 1, 1])
    assert values["teacher_accuracy"] == 3 / 5
    assert (values["lost_to_teacher"], values["won_from_teacher"]) == (3 / 5, 1 / 5)
    assert values["mcnemar_teacher"] == pytest.approx(2 * (comb(4, 0) + comb(4, 1)) / 2**4, abs=1e-12)
    assert values["baseline_accuracy"] == 2 / 5
    assert (values["lost_to_baseline"], values["won_from_baseline"]) == (1 / 5, 0.0)
    assert values["mcnemar_baseline"] == 1.0  # 1 : 0 may be chance


def test_statsmodels_agrees_on_flips() -> None:
    case = random_case(700)
    values = figures(case.logits, full_teacher(case.teacher), case.hard, case.baseline)
    student = case.q.argmax(axis=1)[case.known] == case.y
    references = {"teacher": case.p.argmax(axis=1), "baseline": case.baseline.numpy()}
    for name, decisions in references.items():
        right = decisions[case.known] == case.y
        table = [[int((right == a)[student == b].sum()) for b in (True, False)] for a in (True, False)]
        assert values[f"lost_to_{name}"] == pytest.approx(table[0][1] / len(right), abs=1e-15)
        assert values[f"won_from_{name}"] == pytest.approx(table[1][0] / len(right), abs=1e-15)
        assert values[f"mcnemar_{name}"] == pytest.approx(mcnemar(table, exact=True).pvalue, rel=1e-9)
        exact = binomtest(table[0][1], table[0][1] + table[1][0], 0.5).pvalue
        assert values[f"mcnemar_{name}"] == pytest.approx(exact, rel=1e-9)


def test_no_flips_are_no_evidence() -> None:
    case = random_case()
    values = figures(case.logits, hard=case.hard, baseline=torch.from_numpy(case.q.argmax(axis=1)))
    assert (values["lost_to_baseline"], values["won_from_baseline"], values["mcnemar_baseline"]) == (0.0, 0.0, 1.0)
