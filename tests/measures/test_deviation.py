"""deviation: the line of the student's logit over the teacher's."""

import numpy as np
import pytest
import torch
from scipy.special import logit
from scipy.stats import linregress

from tests.kits.labels import topk_labels
from tests.kits.measures import figures, full_teacher, logs, measured, random_case, teacher_of, topk_teacher


def test_by_hand() -> None:
    """Of two classes, logit u is the difference of logits. x = (1, 2, 3) and y = 2 x - 1: slope 2, nothing below."""
    teacher = full_teacher(np.array([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0]]))
    values = figures(torch.tensor([[1.0, 0.0], [3.0, 0.0], [5.0, 0.0]]).double(), teacher)
    assert values["deviation_slope"] == pytest.approx(2.0, abs=1e-9)
    assert "low_confidence_underfit" not in values  # p[y*] is above 1 / 2 in all rows


def test_low_confidence_by_hand() -> None:
    """p[y*] is .4, .4 and .8. The line goes through the mean of the first two rows' y, one of which lies below it."""
    teacher = teacher_of([[0.4, 0.3, 0.3], [0.4, 0.3, 0.3], [0.8, 0.1, 0.1]])
    values = figures(logs([[0.3, 0.35, 0.35], [0.5, 0.25, 0.25], [0.9, 0.05, 0.05]]), teacher)
    x = np.log([0.4 / 0.6, 0.8 / 0.2])
    y = np.log([0.3 / 0.7, 0.5 / 0.5, 0.9 / 0.1])
    assert values["deviation_slope"] == pytest.approx((y[2] - y[:2].mean()) / (x[1] - x[0]), abs=1e-9)
    assert values["low_confidence_underfit"] == 1 / 2


def test_numpy_and_scipy_agree() -> None:
    case = random_case(600, 20)
    case.logits[0] *= 50  # saturated: clipped at 1e-6
    values = figures(case.logits, full_teacher(case.teacher))
    top = case.p.argmax(axis=1)[:, None]
    p, q = (np.clip(np.take_along_axis(u, top, axis=1)[:, 0], 1e-6, 1 - 1e-6) for u in (case.p, case.q))
    slope, intercept = np.polyfit(logit(p), logit(q), 1)
    assert values["deviation_slope"] == pytest.approx(slope, abs=1e-9)
    assert values["deviation_slope"] == pytest.approx(linregress(logit(p), logit(q)).slope, abs=1e-9)
    below = logit(q) < slope * logit(p) + intercept
    assert 0.1 < below[p < 0.5].mean() < 0.9
    assert values["low_confidence_underfit"] == pytest.approx(below[p < 0.5].mean(), abs=1e-12)


def test_a_topk_store_says_the_same() -> None:
    case = random_case(600, 20)
    full = figures(case.logits, full_teacher(case.teacher))
    topk = measured(case.logits, topk_teacher(case.teacher, 3))
    assert topk["deviation_slope"].exactness == "exact"
    assert topk["deviation_slope"].value == pytest.approx(full["deviation_slope"], abs=1e-5)
    assert topk["low_confidence_underfit"].value == pytest.approx(full["low_confidence_underfit"], abs=1e-12)
    stored = figures(case.logits, topk_labels(case.teacher.astype(np.float32), np.zeros(600, int), 3))
    assert stored["deviation_slope"] == pytest.approx(full["deviation_slope"], abs=0.01)  # rounded as in a store


def test_a_student_who_equals_the_teacher_has_slope_1_and_lies_on_the_line() -> None:
    case = random_case()
    values = figures(torch.from_numpy(case.teacher).float(), full_teacher(case.teacher.astype(np.float32)))
    assert values["deviation_slope"] == pytest.approx(1.0, abs=1e-6)
    assert values["low_confidence_underfit"] == 0.0


def test_one_row_has_no_line() -> None:
    case = random_case(1)
    assert not {"deviation_slope", "low_confidence_underfit"} & set(figures(case.logits, full_teacher(case.teacher)))
