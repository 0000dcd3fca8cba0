"""likelihood: NLL and Brier score."""

from math import log

import pytest
from sklearn.metrics import brier_score_loss, log_loss

from tests.kits.measures import figures, logs, random_case


def test_by_hand() -> None:
    """Rows (.5, .3, .2) with label 1 and (.1, .1, .8) with label 2; the third has no label."""
    values = figures(logs([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8], [0.2, 0.2, 0.6]]), hard=[1, 2, -1])
    assert values["nll"] == pytest.approx(-(log(0.3) + log(0.8)) / 2, abs=1e-15)
    first = 0.5**2 + (0.3 - 1) ** 2 + 0.2**2
    second = 0.1**2 + 0.1**2 + (0.8 - 1) ** 2
    assert values["brier"] == pytest.approx((first + second) / 2, abs=1e-15)


def test_scikit_learn_agrees() -> None:
    case = random_case()
    values = figures(case.logits, hard=case.hard)
    q, labels = case.q[case.known], list(range(12))
    assert values["nll"] == pytest.approx(log_loss(case.y, q, labels=labels), abs=1e-12)
    brier = brier_score_loss(case.y, q, labels=labels, scale_by_half=False)
    assert values["brier"] == pytest.approx(brier, abs=1e-12)
