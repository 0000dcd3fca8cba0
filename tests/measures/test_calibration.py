"""calibration: ECE, over-confidence and class-wise ECE, in 15 bins."""

import numpy as np
import pytest
import torch
from scipy.stats import binned_statistic
from torchmetrics.classification import BinaryCalibrationError, MulticlassCalibrationError

from tests.kits.measures import figures, logs, measured, random_case


def test_by_hand() -> None:
    """Confidences .9, .9 (bin 13, one hit of two) and .5 (bin 7, a hit)."""
    logits = logs([[0.9, 0.1], [0.9, 0.1], [0.5, 0.5]])
    values = figures(logits, hard=[0, 1, 0])
    gaps = 2 / 3 * abs(1 / 2 - 0.9) + 1 / 3 * abs(1.0 - 0.5)
    assert values["ece"] == pytest.approx(gaps, abs=1e-7)
    assert values["overconfidence"] == pytest.approx(
        2 / 3 * 0.9 * (0.9 - 1 / 2), abs=1e-7
    )  # the other is under-confident


def test_class_wise_by_hand() -> None:
    """q_0 is .9, .9, .5 and y = 0 for rows 1 and 3; q_1 is .1, .1, .5 and y = 1 for row 2: bins of two rows and one."""
    value = measured(logs([[0.9, 0.1], [0.9, 0.1], [0.5, 0.5]]), hard=[0, 1, 0])["classwise_ece"]
    class_0 = 2 / 3 * abs(1 / 2 - 0.9) + 1 / 3 * abs(1.0 - 0.5)
    class_1 = 2 / 3 * abs(1 / 2 - 0.1) + 1 / 3 * abs(0.0 - 0.5)
    assert value.by_class == pytest.approx((class_0, class_1), abs=1e-7)
    assert value.value == pytest.approx((class_0 + class_1) / 2, abs=1e-7)


def test_torchmetrics_agrees() -> None:
    case = random_case(500)
    case.logits[:5] = torch.nn.functional.one_hot(torch.arange(5), 12) * 90.0  # saturated
    values = measured(case.logits, hard=case.hard)
    q, y = torch.from_numpy(case.q[case.known]).float(), torch.from_numpy(case.y)
    ece = MulticlassCalibrationError(12, n_bins=15)(q, y)
    assert values["ece"].value == pytest.approx(float(ece), abs=1e-6)
    by_class = [float(BinaryCalibrationError(n_bins=15)(q[:, c], (y == c).long())) for c in range(12)]
    assert values["classwise_ece"].by_class == pytest.approx(by_class, abs=1e-6)
    assert values["classwise_ece"].value == pytest.approx(np.mean(by_class), abs=1e-6)


def test_scipy_agrees_on_over_confidence() -> None:
    case = random_case(500)
    q = case.q[case.known]
    confidence, hits = q.max(axis=1), q.argmax(axis=1) == case.y
    settings = {"bins": 15, "range": (0, 1)}
    count, mean, accuracy = (
        binned_statistic(confidence, values, statistic, **settings).statistic
        for values, statistic in ((hits, "count"), (confidence, "mean"), (hits, "mean"))
    )
    terms = count / len(q) * mean * np.maximum(mean - accuracy, 0)
    assert figures(case.logits, hard=case.hard)["overconfidence"] == pytest.approx(np.nansum(terms), abs=1e-6)
